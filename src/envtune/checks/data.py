"""Whether the data can be read, and how a row of it reads."""

from collections.abc import Iterator

from envtune.errors import Exit, Problem
from envtune.resolve import data as data_types
from envtune.resolve.config import Facts
from envtune.resolve.facts import DataFacts
from envtune.settings.typed import Settings


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    if "datasets" not in settings.axolotl:
        return
    name = settings.axolotl["datasets"].name
    given = settings.axolotl["datasets"].value or []
    tells = settings.passes_through  # RL's types follow from `rl`
    masked = "response_template" in settings.axolotl
    for index, (item, data) in enumerate(zip(given, facts.data, strict=True)):
        if data.problem:
            yield Problem(settings.axolotl["datasets"].at(index, "path"), data.problem, Exit.DATA)
        elif not (tells or data_types.is_typed(item, data, masked=masked)):
            yield Problem(f"{name}__{index}__TYPE", _untyped(data), Exit.DATA)


def _untyped(data: DataFacts) -> str:
    columns = ", ".join(data.columns[:8])
    seen = f"its columns ({columns}) do not tell it" if columns else "it cannot be told from here"
    return (
        f"is not set for {data.path} and {seen}; say how a row reads: alpaca, chat_template, "
        'completion, or {"field_instruction": "question", "field_output": "answer", '
        '"format": "{instruction}"}'
    )


def masks_nothing(settings: Settings, facts: Facts) -> Iterator[str]:
    """A mask that was asked for and that nothing heeds."""
    template, given = settings.axolotl.get("response_template"), settings.axolotl.get("datasets")
    if template is None or not template.value or given is None:
        return
    pairs = zip(given.value or (), facts.data, strict=True)
    if not any(data_types.is_masked(item, data) for item, data in pairs):
        yield f"{template.name}: masks nothing; the type of the data says what trains"

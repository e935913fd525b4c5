"""Whether the data can be read, and how a row of it reads."""

import re
from collections.abc import Iterator
from contextlib import suppress

from envtune.checks.named import module_spec
from envtune.data import sets
from envtune.data.batches import BadRow
from envtune.data.verdicts import Verdict
from envtune.errors import Exit, Problem
from envtune.resolve import data as data_types
from envtune.resolve.config import Facts
from envtune.resolve.facts import DataFacts
from envtune.settings.paths import near_file
from envtune.settings.spelling.nearest import suggestion
from envtune.settings.typed import Settings
from envtune.transfer import addresses

# Axolotl 0.19's own: its modules of prompt_strategies, and what its wrappers know besides.
_TYPES = (
    "alpaca", "chat_template", "completion", "input_output", "alpaca_chat", "alpaca_instruct",
    "alpaca_w_system", "context_qa", "creative_acr", "llama2_chat", "messages", "metharme",
    "orcamini", "pretrain", "pygmalion", "stepwise_supervised", "user_defined", "bradley_terry",
    "explainchoice", "concisechoice", "summarizetldr", "jeopardy", "oasst", "gpteacher",
    "reflection", "_synthetic", "dpo", "kto", "orpo", "ebft",
)  # fmt: skip
# The layouts of preference rows that share their ways to read, and the columns that each reads.
_LAYOUTS = ("chatml", "llama3")
_PAIR = ("chosen", "rejected")
_COLUMNS: dict[str, dict[str, tuple[str, ...]]] = {
    "dpo": {
        "default": ("prompt|input|question",),
        "prompt_pairs": ("prompt", *_PAIR),
        "intel": ("question", *_PAIR),
        "icr": ("input", *_PAIR),
        "ultra": ("prompt", *_PAIR),
        "argilla_chat": _PAIR,
    },
    "kto": {
        "prompt_pairs": ("prompt", "completion", "label"),
        "argilla": ("instruction", "completion", "label"),
        "intel": ("question", "completion", "label"),
        "ultra": ("prompt", "completion", "label"),
        "argilla_chat": ("completion", "label"),
    },
}


# Rows that a check looks at from the first on, seconds that it has for those of a data set and for
# some of the others, and lines that it shows.
_SEEN, _SECONDS, _SAMPLED, _SHOWN = 1000, 0.05, 0.02, 5


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    yield from _unreadable(settings, "test_datasets", facts.test_data)
    if "datasets" not in settings.axolotl:
        return
    yield from _unreadable(settings, "datasets", facts.data)
    name = settings.axolotl["datasets"].name
    given = settings.axolotl["datasets"].value or []
    tells = settings.passes_through  # RL's types follow from `rl`
    masked = "response_template" in settings.axolotl
    for index, (item, data) in enumerate(zip(given, facts.data, strict=True)):
        if addresses.is_remote(data.path):  # its columns tell, once it is here
            continue
        if not (data.problem or tells or data_types.is_typed(item, data, masked=masked)):
            yield Problem(_of_type(name, index), _untyped(data), Exit.DATA)


def _unreadable(settings: Settings, key: str, several: tuple[DataFacts, ...]) -> Iterator[Problem]:
    for index, data in enumerate(several if key in settings.axolotl else ()):
        if data.problem:
            yield Problem(settings.axolotl[key].at(index, "path"), data.problem, Exit.DATA)


def rows(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """What is wrong with the first rows of each local data set and with some of the others; all of
    them are read before the training."""
    given = settings.axolotl.get("datasets")
    told = settings.get("SFT_BAD_ROWS") == "drop" or settings.get("SFT_PREPARE") == "axolotl"
    if given is None or not isinstance(given.value, list) or told or settings.passes_through:
        return
    untyped = data_types.untyped(settings).get("datasets", ())
    masked = "response_template" in settings.axolotl
    for index, (item, data) in enumerate(zip(given.value, facts.data, strict=True)):
        known = data_types.is_typed(item, data, masked=masked)
        if data.local and not data.problem and data.columns and known:
            read = data_types.as_read(item, data, masked=masked)
            verdict = Verdict(most=_SHOWN)
            with suppress(OSError, BadRow):  # told by who looks for the files
                files = sets.files_of(item) or ()
                source = sets.of(read, files, untyped=index in untyped)
                verdict.look(source, _SEEN, _SECONDS)
                verdict.sample(source, _SAMPLED)
            yield from (Problem("", line, Exit.DATA) for line in verdict.lines())


def types(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Types that Axolotl has not, and columns that a type of RL's asks for and no row has."""
    given, rl = settings.axolotl.get("datasets"), settings.axolotl.get("rl")
    items = given.value if given and isinstance(given.value, list) else ()
    for index, (item, data) in enumerate(zip(items, facts.data, strict=True)):
        named = item.get("type")
        if given and isinstance(named, str) and not data.problem:
            what = _lacking(rl.value, named, data) if rl and rl.value else _no_type(named)
            if what:
                yield Problem(given.at(index, "type"), what, Exit.DATA)


def _no_type(named: str) -> str:
    """Why there is no such type of Axolotl's, or nothing; a module of the user's may be one."""
    first = re.split(r"[.:]", named)[0]
    if first in _TYPES or module_spec(first) is not None:
        return ""
    if first == "sharegpt":
        return f"{named} is gone from Axolotl; chat_template reads such rows: leave the type out"
    hint = suggestion(first, _TYPES)
    what = f"{named} is no type of Axolotl's; known: {', '.join(_TYPES)}"
    return f"{what}; {hint}" if hint else what


def _lacking(rl: str, named: str, data: DataFacts) -> str:
    """The columns that a type of RL's reads and the first row has not, or nothing."""
    layout, _, way = named.partition(".")
    asked = _COLUMNS.get("kto" if rl == "kto" else "dpo", {}) if layout in _LAYOUTS else {}
    wanted = asked.get(way or "default", ())
    lost = [names for names in wanted if not set(names.split("|")) & set(data.columns)]
    if not lost or not data.columns:
        return ""
    fitting = [way for way, names in asked.items() if way != "default" and _has(data, names)]
    fix = f"; {layout}.{fitting[0]} fits" if fitting else ""
    return f"{named} reads {', '.join(wanted)}, and the columns are {', '.join(data.columns)}{fix}"


def _has(data: DataFacts, wanted: tuple[str, ...]) -> bool:
    return all(set(names.split("|")) & set(data.columns) for names in wanted)


def _of_type(name: str, index: int) -> str:
    """What says how a set reads: the variable, beside the word of a file that means the sets."""
    variable = f"AXOLOTL_DATASETS__{index}__TYPE"
    return f"{name}: {variable}" if ": " in name else variable


def _untyped(data: DataFacts) -> str:
    columns = ", ".join(data.columns[:8])
    seen = f"its columns ({columns}) do not tell it" if columns else "it cannot be told from here"
    return (
        f"is not set for {data.path} and {seen}{near_file(data.path)}; say how a row reads: "
        'alpaca, chat_template, completion, or {"field_instruction": "question", '
        '"field_output": "answer", "format": "{instruction}"}'
    )


def masks_nothing(settings: Settings, facts: Facts) -> Iterator[str]:
    """A mask that was asked for and that nothing heeds."""
    template, given = settings.axolotl.get("response_template"), settings.axolotl.get("datasets")
    if template is None or not template.value or given is None:
        return
    pairs = zip(given.value or (), facts.data, strict=True)
    if not any(data_types.is_masked(item, data) for item, data in pairs):
        yield f"{template.name}: masks nothing; the type of the data says what trains"

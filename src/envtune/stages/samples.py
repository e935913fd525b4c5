"""What people read of an evaluation: a table for the log, and pages of answers. Pure text."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import jinja2

from envtune.columns import columns
from envtune.render.yaml_files import TEMPLATES

SIDES = ("base", "tuned")
_PAGES = ("samples.md", "samples.html")
_ANSWERS = (
    ("repetition", "repeated 4-grams"),
    ("distinct_1", "distinct-1"),
    ("distinct_2", "distinct-2"),
    ("coherence", "coherence"),
)
_LIKENESS = (
    ("bleu", "BLEU"),
    ("chrf", "chrF"),
    ("rouge1", "ROUGE-1"),
    ("rouge2", "ROUGE-2"),
    ("rougeL", "ROUGE-L"),
)
# Measures that are shares of one; coherence is a log-likelihood.
_SHARES = ("success_rate", "repetition", "distinct_1", "distinct_2")

Rows = Iterator[tuple[str, str, str]]


def table(results: Mapping[str, Any]) -> str:
    """Every measure of the base and of the tuned model, side by side."""
    return columns(("measure", *SIDES), list(rows(results)))


def pages(results: Mapping[str, Any], run: str) -> dict[str, str]:
    """The pages by file name. Whatever a model said is shown as text."""
    context = {"results": results, "rows": list(rows(results)), "run": run, "sides": SIDES}
    return {name: _template(name).render(**context) for name in _PAGES}


def rows(results: Mapping[str, Any]) -> Rows:
    """Each measure's name, and its value for the base and for the tuned model."""
    if "skipped" not in (measured := results["validation"]):
        yield _row("validation loss", measured, "loss")
        yield _row("validation perplexity", measured, "perplexity")
    if answered := results["generation"]:
        yield from _answers(answered)
    if scored := results["references"]:
        for name, title in _LIKENESS:
            yield _row(f"{title} of the pairs", scored, name)
    for task, sides in results["tasks"].items():
        for name in sides["tuned"]:
            if "_stderr," not in name:
                yield _row(f"{task} {name.removesuffix(',none')}", sides, name)


def _answers(answered: Mapping[str, Any]) -> Rows:
    yield _row("answers that pass every check", answered, "success_rate")
    for check in answered["tuned"]["checks"]:
        base, tuned = (answered[side]["checks"].get(check) for side in SIDES)
        yield f"- {check}", _shown("success_rate", base), _shown("success_rate", tuned)
    for name, title in _ANSWERS:
        yield _row(title, answered, name)
    for unit in ("tokens", "words", "sentences"):
        base, tuned = (_spread(answered[side][unit]) for side in SIDES)
        yield f"{unit} of an answer", base, tuned


def _row(title: str, sides: Mapping[str, Any], name: str) -> tuple[str, str, str]:
    base, tuned = (_shown(name, sides[side].get(name)) for side in SIDES)
    return title, base, tuned


def _shown(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0%}" if name in _SHARES else f"{value:,.4g}"


def _spread(lengths: Mapping[str, float]) -> str:
    return f"{lengths['median']:g} ({lengths['min']:g} to {lengths['max']:g})"


@cache
def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=name.endswith(".html"),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["fenced"] = _fenced
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")
    return environment.get_template(f"{name}.j2")


def _fenced(text: str) -> str:
    """Text as a block of Markdown that nothing in it can end."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"

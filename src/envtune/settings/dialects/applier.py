"""What the rule of a name makes of one entry."""

from dataclasses import dataclass, field, replace
from typing import Any

from envtune import files
from envtune.errors import Problem
from envtune.settings import upstream
from envtune.settings.dialects.rules import Becomes, Noted, Others, Outcome, Refused, Rule
from envtune.settings.schema import Mismatch, Schema
from envtune.settings.sources import Entry, as_text

_PLAIN = Schema({}, {})


@dataclass
class Translation:
    """A layer in envtune's own names, what the user should know, and what cannot be done.

    `implied` is what a tool itself adds where its file is silent: weaker than every layer.
    `open` holds problems that a key of another layer answers.
    """

    entries: list[Entry] = field(default_factory=list)
    implied: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[Problem] = field(default_factory=list)
    open: list[tuple[str, Problem]] = field(default_factory=list)


def apply(entry: Entry, name: str, rule: Rule, others: Others, result: Translation) -> None:
    """Adds to `result` what comes of an entry under `name` with its neighbours."""
    if isinstance(rule, str):
        result.entries.append(replace(entry, key=rule))
        return
    made: Outcome | list[Outcome]
    if isinstance(rule, Becomes):
        try:
            made = rule.make(_typed(entry, rule), others)
        except Mismatch as problem:
            result.problems += problem.lines(entry.label, entry.text)
            return
    else:
        made = rule
    for outcome in made if isinstance(made, list) else [made]:
        _take(entry, name, outcome, result)


def _typed(entry: Entry, rule: Becomes) -> Any:
    if entry.structured:
        return _PLAIN.accept(entry.value, rule.node)
    return _PLAIN.parse(entry.text, rule.node)


def _take(entry: Entry, name: str, outcome: Outcome, result: Translation) -> None:
    if isinstance(outcome, Noted):
        if outcome.reason:
            result.notes.append(f"{entry.label}: {outcome.reason}")
    elif isinstance(outcome, Refused):
        problem = Problem(entry.label, f"cannot be obeyed: {outcome.reason}")
        if outcome.instead:
            result.open.append((outcome.instead, problem))
        elif not _asks_for_nothing(entry, name, outcome):
            result.problems.append(problem)
    else:
        for key, value in outcome.items():
            made = replace(entry, text=as_text(value), value=value, key=key, made=True)
            result.entries.append(made)


def _asks_for_nothing(entry: Entry, name: str, refused: Refused) -> bool:
    """Whether the value is what would happen anyway: the flag's own default, or nothing."""
    value = entry.value if entry.structured else plain(entry.text)
    defaults = upstream.trainer()["flags"]
    usual = [*refused.unless, *([defaults[last(name)]] if last(name) in defaults else ())]
    return value is None or any(value == one and _both_bool(value, one) for one in usual)


def _both_bool(value: Any, other: Any) -> bool:
    """1 and True are two things."""
    return isinstance(value, bool) == isinstance(other, bool)


def plain(value: Any) -> Any:
    """What a text spells in JSON, `2e-4` and `True` too; anything else as it is."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if not isinstance(value, str):
        return value
    if value.strip().lower() in words:
        return words[value.strip().lower()]
    try:
        return files.parse(value)
    except ValueError:
        return value


def last(name: str) -> str:
    """A name without its section."""
    return name.rsplit(".", 1)[-1]

"""Foreign dialects -> envtune's own names: one table each, and this one applier.

A dialect is told by the top keys of its document; the SFT trainer's flags also come as
`SFT_<FLAG>`. A translated entry keeps the name that the user typed and carries the key that
it means; nothing else knows that dialects exist.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from envtune.errors import Problem
from envtune.settings import upstream
from envtune.settings.dialects import compose, industrial, trainer
from envtune.settings.dialects.rules import (
    Becomes,
    Implied,
    Noted,
    Others,
    Outcome,
    Refused,
    Rule,
    Table,
)
from envtune.settings.nearest import nearest
from envtune.settings.own import OWN
from envtune.settings.schema import Mismatch, Schema
from envtune.settings.sources import SFT, Entry, Layer, as_text

_PLAIN = Schema({}, {})


@dataclass(frozen=True)
class Dialect:
    """A table, and the top keys that tell a document of it; one of them is enough.

    `comments`: a name that begins with an underscore is one.
    """

    name: str
    table: Table
    marks: tuple[str, ...]
    sections: bool = True
    comments: bool = False
    implied: Callable[[Others], Implied] = lambda others: {}


TRAINER = Dialect(
    "the SFT trainer", trainer.TABLE, trainer.MARKS, sections=False, implied=trainer.implied
)
DIALECTS = (
    Dialect(
        "the compose pipeline",
        compose.TABLE,
        ("paths", "preprocess", "train", "logging"),
        implied=compose.implied,
    ),
    Dialect(
        "the industrial pipeline's training",
        industrial.TRAINING,
        ("training_params", "lora_config", "evaluation_config", "eval_prompts"),
        comments=True,
    ),
    Dialect(
        "the industrial pipeline's data",
        industrial.DATA,
        ("output_params", "quality_filters", "template"),
        comments=True,
    ),
    TRAINER,
)


@dataclass
class Translation:
    """A layer in envtune's own names, what the user should know, and what cannot be done.

    `implied` is a dialect's own default where it is not envtune's: weaker than every layer.
    """

    entries: list[Entry] = field(default_factory=list)
    implied: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[Problem] = field(default_factory=list)


def translate(layer: Layer) -> Translation:
    """Every entry of a layer, translated where it is foreign."""
    result = Translation()
    sources: dict[str, list[Entry]] = {}
    for entry in layer.entries:
        sources.setdefault(entry.document, []).append(entry)
    for document, entries in sources.items():
        if document:
            _document(document, entries, result)
        else:
            _variables(entries, result)
    return result


@functools.cache
def flags() -> frozenset[str]:
    """Every flag of the SFT trainer: its own, and those of TrainingArguments."""
    return frozenset([*trainer.TABLE, *upstream.trainer()["flags"]])


def _variables(entries: Sequence[Entry], result: Translation) -> None:
    others = {flag: _plain(e.text) for e in entries if (flag := _flag(e))}
    for entry in entries:
        flag = _flag(entry)
        if flag is None:
            result.entries.append(entry)
        elif flag in trainer.TABLE:
            _apply(entry, flag, trainer.TABLE[flag], others, result)
        else:
            result.entries.append(replace(entry, key=flag))


def _flag(entry: Entry) -> str | None:
    """The trainer's flag that a variable spells, or None."""
    flag = entry.name.removeprefix(SFT).lower()
    ours = entry.name in OWN or entry.name != entry.name.upper()
    return None if ours or not entry.name.startswith(SFT) or flag not in flags() else flag


def _document(document: str, entries: Sequence[Entry], result: Translation) -> None:
    given = {e.name: e.value for e in entries}
    dialect = next((d for d in DIALECTS if any(mark in given for mark in d.marks)), None)
    if dialect is None:
        result.entries += entries
        return
    result.notes.append(f"{document}: is read as a configuration of {dialect.name}")
    flat = dict(_flat(given, dialect))
    plain = {name: _plain(value) for name, value in flat.items()}
    others = {_last(name): value for name, value in plain.items()} | plain
    for name, value in flat.items():
        entry = Entry(name, as_text(value), value, document)
        if (rule := dialect.table.get(name)) is not None:
            _apply(entry, name, rule, others, result)
        elif _last(name) in upstream.axolotl()["fields"] or name in OWN:
            result.entries.append(replace(entry, key=_last(name)))
        elif not dialect.sections:
            result.entries.append(entry)
        elif not (dialect.comments and "._" in f".{name}"):
            result.unknown.append(_unknown(entry, dialect))
    for told, (key, value) in dialect.implied(others).items():
        result.implied.append(Entry(told, as_text(value), value, document, key))


def _flat(given: Mapping[str, Any], dialect: Dialect) -> Iterator[tuple[str, Any]]:
    """Sections as `section.name`; what is null was left out."""
    for name, value in given.items():
        if dialect.sections and isinstance(value, Mapping) and name not in dialect.table:
            inside = ((f"{name}.{inner}", item) for inner, item in value.items())
            yield from ((label, item) for label, item in inside if item is not None)
        elif value is not None:
            yield name, value


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _unknown(entry: Entry, dialect: Dialect) -> Problem:
    hint = nearest(entry.name, list(dialect.table))
    return Problem(entry.label, f"no such setting{f'; did you mean {hint}?' if hint else ''}")


def _apply(
    entry: Entry, name: str, rule: Rule, others: Mapping[str, Any], result: Translation
) -> None:
    if isinstance(rule, str):
        result.entries.append(replace(entry, key=rule))
        return
    made: Outcome | list[Outcome]
    if isinstance(rule, Becomes):
        try:
            made = rule.make(_typed(entry, rule), others)
        except Mismatch as problem:
            result.problems.append(problem.told(entry.label, entry.text))
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
        if not _asks_for_nothing(entry, name, outcome):
            result.problems.append(Problem(entry.label, f"cannot be obeyed: {outcome.reason}"))
    else:
        for key, value in outcome.items():
            made = replace(entry, text=as_text(value), value=value, key=key, made=True)
            result.entries.append(made)


def _asks_for_nothing(entry: Entry, name: str, refused: Refused) -> bool:
    """Whether the value is what would happen anyway: the flag's own default, or nothing."""
    value = entry.value if entry.structured else _plain(entry.text)
    defaults = upstream.trainer()["flags"]
    usual = [*refused.unless, *([defaults[_last(name)]] if _last(name) in defaults else ())]
    return value is None or any(value == one and _both_bool(value, one) for one in usual)


def _both_bool(value: Any, other: Any) -> bool:
    """1 and True are two things."""
    return isinstance(value, bool) == isinstance(other, bool)


def _plain(value: Any) -> Any:
    """What a text spells in JSON, `2e-4` and `True` too; anything else as it is."""
    words = {"true": True, "false": False, "none": None, "null": None}
    if not isinstance(value, str):
        return value
    if value.strip().lower() in words:
        return words[value.strip().lower()]
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value

"""A layer of foreign names -> envtune's own, entry by entry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from envtune.errors import Problem
from envtune.settings import upstream
from envtune.settings.dialects import trainer
from envtune.settings.dialects.applier import Translation, apply, last, plain
from envtune.settings.dialects.registry import DIALECTS, Dialect, flags
from envtune.settings.nearest import nearest
from envtune.settings.own import OWN
from envtune.settings.sources import SFT, Entry, Layer, as_text


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


def _variables(entries: Sequence[Entry], result: Translation) -> None:
    others = {flag: plain(e.text) for e in entries if (flag := _flag(e))}
    for entry in entries:
        flag = _flag(entry)
        if flag is None:
            result.entries.append(entry)
        elif flag in trainer.TABLE:
            apply(entry, flag, trainer.TABLE[flag], others, result)
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
    others = _neighbours(flat)
    for name, value in flat.items():
        entry = Entry(name, as_text(value), value, document)
        if (rule := dialect.table.get(name)) is not None:
            apply(entry, name, rule, others, result)
        elif last(name) in upstream.axolotl()["fields"] or name in OWN:
            result.entries.append(replace(entry, key=last(name)))
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


def _neighbours(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a document by their names, and by the last parts of those."""
    named = {name: plain(value) for name, value in flat.items()}
    return {last(name): value for name, value in named.items()} | named


def _unknown(entry: Entry, dialect: Dialect) -> Problem:
    hint = nearest(entry.name, list(dialect.table))
    return Problem(entry.label, f"no such setting{f'; did you mean {hint}?' if hint else ''}")

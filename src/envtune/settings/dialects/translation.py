"""A layer of foreign names -> envtune's own, entry by entry."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from envtune.errors import Problem
from envtune.settings.axolotl_keys import schema
from envtune.settings.dialects import launching, trainer
from envtune.settings.dialects.applier import Translation, apply, last, plain
from envtune.settings.dialects.registry import DIALECTS, FOREIGN, TRAINER, Dialect, flags
from envtune.settings.dialects.rules import without
from envtune.settings.own import OWN
from envtune.settings.sources import AXOLOTL, SFT, Entry, Layer, as_text
from envtune.settings.spelling.nearest import nearest


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
    given = {flag: plain(e.text) for e in entries if (flag := _flag(e))}
    # Its data are what no run of the trainer's is without.
    added = trainer.defaults(given) if "training_data_path" in given else {}
    others = {**added, **given}
    for entry in entries:
        flag = _flag(entry)
        if flag is None:
            result.entries.append(entry)
        else:
            apply(entry, flag, trainer.TABLE.get(flag, flag), others, result)
    _silent("", TRAINER, without(added, *given), others, result)


def _flag(entry: Entry) -> str | None:
    """The trainer's flag that a variable spells, or None."""
    if entry.name == launching.ARGS:  # ours too, and read as the trainer's object is
        return "accelerate_launch_args"
    flag = entry.name.removeprefix(SFT).lower()
    ours = entry.name in OWN or entry.name != entry.name.upper()
    return None if ours or not entry.name.startswith(SFT) or flag not in flags() else flag


def _document(document: str, entries: Sequence[Entry], result: Translation) -> None:
    given = {e.name: e.value for e in entries}
    if all(entry.key for entry in entries):  # named as Axolotl names it already
        result.entries += entries
    elif foreign := next((f for f in FOREIGN if f.told(given)), None):
        told = f"is a file of {foreign.name}, which is not translated; {foreign.instead}"
        result.problems.append(Problem(document, told))
    elif dialect := next((d for d in DIALECTS if d.told(given)), None):
        _translated(document, dialect, given, result)
    else:
        result.entries += entries


def _translated(
    document: str, dialect: Dialect, given: Mapping[str, Any], result: Translation
) -> None:
    result.notes.append(f"{document}: is read as a configuration of {dialect.name}")
    flat = dict(_flat(given, dialect))
    added = without(dialect.defaults(_neighbours(flat)), *flat)
    others = _neighbours(added | flat)
    for name, value in flat.items():
        _line(Entry(name, as_text(value), value, document), dialect, others, result)
    _silent(document, dialect, added, others, result)


def _line(entry: Entry, dialect: Dialect, others: Mapping[str, Any], result: Translation) -> None:
    name = entry.name
    if (rule := dialect.table.get(name)) is not None:
        apply(entry, name, rule, others, result)
    elif last(name) in schema().fields or name in OWN:
        result.entries.append(replace(entry, key=last(name)))
    elif name.startswith((SFT, AXOLOTL)):
        result.entries.append(entry)
    elif not (dialect.comments and "._" in f".{name}"):
        result.unknown.append(_unknown(entry, dialect))


def _silent(
    document: str,
    dialect: Dialect,
    added: Mapping[str, Any],
    others: Mapping[str, Any],
    result: Translation,
) -> None:
    """What the tool itself adds, weaker than every layer; said where nothing else says it."""
    set_already, told = {entry.key for entry in result.entries}, []
    for name, value in added.items():
        made = Translation()
        entry = Entry(f"no {name}", as_text(value), value, document, made=True)
        apply(entry, name, dialect.table.get(name, name), others, made)
        result.implied += made.entries
        if not {entry.key for entry in made.entries} <= set_already:
            whole = any(e.key == "adapter" and e.value is None for e in made.entries)
            told.append(f"{name} {as_text(value)}{' (all weights train)' if whole else ''}")
    if told:
        where = f"{document}: " if document else ""
        result.notes.append(f"{where}silent, so {dialect.name}'s own hold: {', '.join(told)}")


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
    names = dialect.table if dialect.sections else [*dialect.table, *schema().fields, *OWN]
    hint = nearest(entry.name, list(names))
    return Problem(entry.label, f"no such setting{f'; did you mean {hint}?' if hint else ''}")

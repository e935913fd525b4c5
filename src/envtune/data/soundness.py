"""What is wrong with a row, told before anything is tokenised, and what a row says.

`problem` tells what Axolotl would raise on, or would train the text `None` of; `idle` tells of what
nothing is learned. What is not known of a type is left to Axolotl.
"""

import json
import re
import string
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from envtune.data.batches import Batch, Row
from envtune.data.shapes import CHAT, TEMPLATED, Keys
from envtune.settings import upstream

Told = tuple[str, str]
_ROLES = frozenset(
    ("system", "developer", "user", "human", "assistant", "gpt", "model", "tool", "function",
     "ipython", "observation", "environment", "context", "documents")
)  # fmt: skip
_ANSWERS = frozenset(("assistant", "gpt", "model"))
_SHOWN = 60
# A column in a layout; the last one answers.
_PLACE = re.compile(r"\{\{\s*(.+?)\s*\}\}")


def problem(row: Row, keys: Keys) -> Told | None:
    """The reason, the same for each row of its kind, and what is wrong with this one; or None."""
    return judge(keys)(row)


def judge(keys: Keys) -> Callable[[Row], Told | None]:
    """`problem` of rows that read alike, with what is the same for all of them looked up once."""
    kind = _type(keys)
    if kind == CHAT:
        return partial(_chat, keys=keys)
    if kind == "completion":
        return partial(_text, name=str(keys.get("field") or "text"), needed=True)
    if kind == "input_output":
        return _segments
    if kind == TEMPLATED:
        return partial(_templated, keys=keys)
    columns = _columns(kind)
    return partial(_instruct, columns=columns) if columns else lambda row: None


def all_sound(batch: Batch, keys: Keys) -> bool:
    """Whether rows that read alike are all sound, where that is told at once of all of them."""
    kind = _type(keys)
    if kind == "completion":
        return _all_texts(batch, str(keys.get("field") or "text"))
    columns = None if kind in (CHAT, TEMPLATED) else _columns(kind)
    return columns is not None and all(
        _all_texts(batch, name, or_none=name in columns.optional) for name in columns.all
    )


def _all_texts(batch: Batch, name: str, *, or_none: bool = False) -> bool:
    kinds = set(map(type, batch.column(name)))
    return kinds <= ({str, type(None)} if or_none else {str})


def _type(keys: Keys) -> Any:
    """The type that keys name, or that those of a layout, a column or turns mean."""
    if keys.get("type"):
        return keys["type"]
    if keys.get("field_messages"):
        return CHAT
    return TEMPLATED if keys.get("input_format") else "completion" if keys.get("field") else None


def _templated(row: Row, keys: Keys) -> Told | None:
    if not keys.get("input_format"):
        return _text(row, keys.get("field") or "text", needed=True)
    lost = [name for name in _PLACE.findall(keys["input_format"]) if name not in row]
    return _lacking(row, lost[0]) if lost else None


def idle(row: Row, keys: Keys) -> str:
    """Why nothing is learned from a row that is sound, or nothing."""
    return idler(keys)(row)


def idler(keys: Keys) -> Callable[[Row], str]:
    """`idle` of rows that read alike."""
    kind = _type(keys)
    if kind == CHAT:
        return lambda row: "" if _answers(row, keys) else "no answer in it"
    if columns := _columns(kind):
        answered = columns.answered
        return lambda row: (
            "" if any(_plain(row.get(n)).strip() for n in answered) else "an empty answer"
        )
    return lambda row: "" if texts(row, keys)[1].strip() else "an empty answer"


def all_teach(batch: Batch, keys: Keys) -> bool:
    """Whether none of rows that read alike is idle, where that is told at once of all of them."""
    kind = _type(keys)
    columns = None if kind in (CHAT, TEMPLATED, "completion") else _columns(kind)
    answered = columns.answered if columns else (str(keys.get("field") or "text"),)
    if kind in (CHAT, TEMPLATED, "input_output") or len(answered) > 1:
        return False
    said = batch.column(answered[0])
    return set(map(type, said)) == {str} and all(map(str.strip, said))


def _answers(row: Row, keys: Keys) -> bool:
    """Whether a turn of somebody who answers says anything."""
    role, content = _sides(keys)
    own = (keys.get("roles") or {}).get("assistant") or ()
    answers = {*_ANSWERS, *(keys.get("roles_to_train") or ()), *own}
    said = (content, "tool_calls", "reasoning_content")
    turns = (turn for turn in _turns(row, keys) if turn.get(role) in answers)
    return any(turn.get(name) for turn in turns for name in said)


def texts(row: Row, keys: Keys) -> tuple[str, str]:
    """What a row asks and what it answers, as far as its keys tell; ("", all) for plain text."""
    kind = _type(keys)
    if kind == CHAT:
        role, content = _sides(keys)
        sides: tuple[list[str], list[str]] = ([], [])
        for turn in _turns(row, keys):
            sides[turn.get(role) in _ANSWERS].append(_plain(turn.get(content)))
        return "\n".join(sides[0]), "\n".join(sides[1])
    if kind == "input_output":
        parts = [part for part in row.get("segments") or () if isinstance(part, Mapping)]
        asked, answered = (
            "".join(_plain(part.get("text")) for part in parts if bool(part.get("label")) is on)
            for on in (False, True)
        )
        return asked, answered
    if kind == TEMPLATED and keys.get("input_format"):
        *before, last = dict.fromkeys(_PLACE.findall(keys["input_format"]))
        return "\n".join(_plain(row.get(name)) for name in before), _plain(row.get(last))
    columns = _columns(kind)
    if columns is None:
        return "", _plain(row.get(str(keys.get("field") or "text")))
    asked = "\n".join(_plain(row.get(n)) for n in columns.asked if row.get(n) not in (None, ""))
    return asked, "\n".join(_plain(row.get(name)) for name in columns.answered)


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return "".join(str(p.get("text", "")) if isinstance(p, Mapping) else str(p) for p in value)
    return "" if value is None else str(value)


def _sides(keys: Keys) -> tuple[str, str]:
    mapped = keys.get("message_property_mappings") or {}
    role = mapped.get("role") or keys.get("message_field_role") or "role"
    return role, mapped.get("content") or keys.get("message_field_content") or "content"


def _field(keys: Keys) -> str:
    return str(keys.get("field_messages") or "messages")


def _turns(row: Row, keys: Keys) -> list[Mapping[str, Any]]:
    found = row.get(_field(keys))
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except (ValueError, RecursionError):
            return []
    return [turn for turn in found if isinstance(turn, Mapping)] if isinstance(found, list) else []


def _chat(row: Row, keys: Keys) -> Told | None:
    name = _field(keys)
    if name not in row:
        return _lacking(row, name)
    turns = row[name]
    if turns is None:
        return "null", f"{name} is null; it has to be a list of turns"
    if isinstance(turns, str):
        try:
            turns = json.loads(turns)
        except (ValueError, RecursionError):
            return "no list of turns", f"{name} is a text, {_short(turns)}, and no list of turns"
    if not isinstance(turns, list):
        return "no list of turns", f"{name} is {_kind(turns)} and no list of turns"
    if not turns:
        return "no turn", f"{name} is an empty list"
    found = (_turn(turn, f"{name}[{i}]", keys) for i, turn in enumerate(turns))
    return next((told for told in found if told), None)


def _turn(turn: Any, where: str, keys: Keys) -> Told | None:
    if not isinstance(turn, Mapping):
        return (
            "a turn that is no object",
            f"{where} is {_kind(turn)}, {_short(turn)}, and no object",
        )
    role, content = _sides(keys)
    said = turn.get(role)
    if said is None:
        has = ", ".join(map(str, turn)) or "nothing"
        return "a turn without a role", f"{where} has no {role}; it has {has}"
    if not isinstance(said, str):
        return "no text", f"{where}.{role} is {_kind(said)}, {_short(said)}, and no text"
    own = {name for names in (keys.get("roles") or {}).values() for name in names}
    if said not in _ROLES and said not in own and said not in (keys.get("roles_to_train") or ()):
        what = f"{where} has the role {_short(said)}; known are system, user, assistant and tool"
        return "a role that is not known", f"{what}; the data set's `roles` maps others"
    value = turn.get(content)
    if value is None and not any(turn.get(n) for n in ("tool_calls", "reasoning_content")):
        told = "is null" if content in turn else "is not there"
        return "null" if content in turn else "no content", f"{where}.{content} {told}"
    if value is not None and not isinstance(value, str | list):
        return "no text", f"{where}.{content} is {_kind(value)}, {_short(value)}, and no text"
    parts = value if isinstance(value, list) else ()
    if wrong := [part for part in parts if not isinstance(part, str | Mapping)]:
        what = f"{where}.{content} has a part that is {_kind(wrong[0])}, {_short(wrong[0])}"
        return "a part that is no object", f"{what}, and no object with a text"
    return None


class _Columns:
    """The columns of a type: what asks, what answers, and those that a row may lack."""

    def __init__(self, forms: Mapping[str, str], optional: frozenset[str]) -> None:
        named = {part: _names(form) for part, form in forms.items()}
        self.answered = named.pop("output")
        order = ("system", "instruction", "input")
        asked = (name for part in order for name in named.get(part, ()))
        self.asked = tuple(dict.fromkeys(asked))
        self.optional = optional
        self.all = (*self.asked, *self.answered)


def _names(form: str) -> tuple[str, ...]:
    return tuple(name for _, name, _, _ in string.Formatter().parse(form) if name)


def _columns(kind: Any) -> _Columns | None:
    if isinstance(kind, Mapping):
        return _of_user(json.dumps(kind, sort_keys=True, default=str))
    return _of_axolotl(kind) if isinstance(kind, str) else None


@cache
def _of_axolotl(kind: str) -> _Columns | None:
    known = upstream.instruct()["types"].get(kind)
    return known and _Columns(known["columns"], frozenset(known["optional"]))


@cache
def _of_user(kind: str) -> _Columns:
    said = {**upstream.instruct()["user_defined"], **json.loads(kind)}
    parts = ("system", "instruction", "input", "output")
    fields = {part: said.get(f"field_{part}") or part for part in parts}
    forms = {part: f"{{{name}}}" for part, name in fields.items()}
    return _Columns(forms, frozenset((fields["system"], fields["input"])))


def _instruct(row: Row, columns: _Columns) -> Told | None:
    if all([type(row.get(name)) is str for name in columns.all]):  # noqa: C419  # as most rows do
        return None
    for name in columns.all:
        needed = name not in columns.optional
        if name in columns.answered and name in row and row[name] in (None, ""):
            continue  # nothing is learned from it, and nothing fails
        asked = needed or row.get(name) is not None
        if asked and (told := _text(row, name, needed=needed)):
            return told
    return None


def _text(row: Row, name: str, *, needed: bool) -> Told | None:
    if name not in row:
        return _lacking(row, name) if needed else None
    value = row[name]
    if value is None:
        return "null", f"{name} is null; it has to be a text"
    if not isinstance(value, str):
        return "no text", f"{name} is {_kind(value)}, {_short(value)}, and no text"
    return None


def _segments(row: Row) -> Told | None:
    segments = row.get("segments")
    if "segments" not in row:
        return _lacking(row, "segments")
    if not isinstance(segments, list) or not segments:
        return "no list of segments", "segments is no list of objects with text and label"
    for index, part in enumerate(segments):
        if (
            not isinstance(part, Mapping)
            or not isinstance(part.get("text"), str)
            or "label" not in part
        ):
            what = f"segments[{index}] is no object with a text and a label"
            return "a segment without text or label", what
    return None


def _lacking(row: Row, name: str) -> Told:
    has = ", ".join(map(str, list(row)[:8])) or "none"
    alike = next((str(n) for n in row if str(n).strip().lower() == name.lower()), "")
    fix = f"; {alike} is not {name}: rename it" if alike else ""
    return f"no column {name}", f"has no column {name}; its columns are {has}{fix}"


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", bool: "a flag", type(None): "null"}
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else "a text")


def _short(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "..."

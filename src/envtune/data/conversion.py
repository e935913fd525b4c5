"""Rows of any file as the ones that are trained: messages, or a prompt and its completion."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from envtune.data.batches import BadRow, Batch, Row
from envtune.data.shapes import ANSWERED, ASKED, CHATS

_ROLES = {"human": "user", "gpt": "assistant"}


def converted(batches: Iterable[Batch]) -> Iterator[Row]:
    """Each row anew. Raises BadRow for one that holds neither."""
    for batch in batches:
        for index, row in enumerate(batch.rows):
            yield _converted(row, batch.where(index))


def _converted(row: Row, where: str) -> Row:
    if chat := next((row[name] for name in CHATS if row.get(name)), None):
        return {"messages": [_message(one, where) for one in _turns(chat, where)]}
    if set(row) == {"text"}:
        return {"text": _text(row["text"], where, "text")}
    prompt, answer = (_named(row, names) for names in (ASKED, ANSWERED))
    if prompt is None or answer is None:
        lost = " or ".join(ASKED if prompt is None else ANSWERED)
        raise BadRow(where, "no such columns", f"has no {lost}; it has {', '.join(row) or 'none'}")
    asked = _text(row[prompt], where, prompt)
    more = row.get("input") if prompt == "instruction" else None
    asked = f"{asked}\n\n{_text(more, where, 'input')}" if more else asked
    return {"prompt": asked, "completion": _text(row[answer], where, answer)}


def _named(row: Row, names: tuple[str, ...]) -> str | None:
    """The column that holds a text; of several the first that is not empty. `input` beside an
    `instruction` is a part of that one."""
    there = [name for name in names if name in row]
    if "instruction" in there and "input" in there and "prompt" not in there:
        there.remove("input")
    return next((name for name in there if row[name] not in (None, "")), next(iter(there), None))


def _turns(chat: Any, where: str) -> list[Any]:
    if not isinstance(chat, list):
        raise BadRow(where, "no list of turns", f"its turns are {_kind(chat)} and no list")
    return chat


def _message(turn: Any, where: str) -> Mapping[str, Any]:
    """A turn by the names of `messages`; what else it holds stays."""
    role = _named(turn, ("role", "from")) if isinstance(turn, Mapping) else None
    if role is None:
        raise BadRow(where, "a turn without a role", f"a turn has no role: {str(turn)[:80]}")
    content = "value" if "content" not in turn and "value" in turn else "content"
    rest = {name: value for name, value in turn.items() if name not in (role, content)}
    said = _ROLES.get(turn[role], turn[role])
    return {"role": said, "content": turn.get(content), **rest}


def _text(value: Any, where: str, name: str) -> str:
    """A text, also where a file typed it as a number; nothing is an empty one."""
    if value is None:
        return ""
    if isinstance(value, str | int | float | bool):
        return str(value)
    raise BadRow(where, "no text", f"{name} holds {_kind(value)} and no text")


def _kind(value: Any) -> str:
    return "an object" if isinstance(value, Mapping) else f"a {type(value).__name__}"

"""A row's prompt and its answer, by the keys of its data set: what the filters look at."""

import re
from collections.abc import Mapping
from typing import Any

from envtune.data.batches import Row

_COLUMN = re.compile(r"\{\{\s*(.+?)\s*\}\}")
# The columns of types that name none: the first that is there counts.
_PROMPTS = ("instruction", "prompt", "question", "input", "title")
_ANSWERS = ("output", "completion", "response", "answer")


def texts(row: Row, keys: Mapping[str, Any]) -> tuple[str, str]:
    """The prompt and the answer; of a chat all before its last answer, and that one. Raises
    ValueError for a row that has not what its keys name."""
    kind = keys.get("type")
    if layout := keys.get("input_format"):
        *asked, answer = _COLUMN.findall(layout)
        return "\n".join(_text(row, name) for name in asked), _text(row, answer)
    if isinstance(kind, Mapping):
        prompt = kind.get("field_instruction") or "instruction"
        return _pair(row, (prompt,), (kind.get("field_output") or "output",))
    if str(kind).startswith("chat_template"):
        return _chat(row, keys)
    if kind == "completion" or "field" in keys:
        return "", _text(row, keys.get("field") or "text")
    return _pair(row, _PROMPTS, _ANSWERS)


def problem(row: Row, keys: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why a row has no prompt and answer that can be trained, or None: (reason, what)."""
    try:
        _, answer = texts(row, keys)
    except ValueError as error:
        return "columns missing", str(error)
    return None if answer.strip() else ("no answer", "has an empty answer, and nothing to learn")


def _pair(row: Row, prompts: tuple[str, ...], answers: tuple[str, ...]) -> tuple[str, str]:
    asked, answer = (_first(row, names) for names in (prompts, answers))
    more = _text(row, "input") if asked != "input" and row.get("input") else ""
    prompt = _text(row, asked)
    return (f"{prompt}\n\n{more}" if more else prompt), _text(row, answer)


def _first(row: Row, names: tuple[str, ...]) -> str:
    found = next((name for name in names if name in row), None)
    if found is None:
        raise ValueError(f"has no {' or '.join(names)}; it has {', '.join(row) or 'none'}")
    return found


def _chat(row: Row, keys: Mapping[str, Any]) -> tuple[str, str]:
    field, names = keys.get("field_messages") or "messages", keys.get("message_property_mappings")
    role, content = ((names or {}).get(name, name) for name in ("role", "content"))
    turns = row.get(field)
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise ValueError(f"has no list of turns in {field}; it has {', '.join(row) or 'none'}")
    said = [(str(turn.get(role)), _text(turn, content)) for turn in turns]
    answers = [n for n, (who, _) in enumerate(said) if who in ("assistant", "gpt")]
    if not answers:
        raise ValueError(f"has no turn of the assistant in {field}")
    return "\n".join(text for _, text in said[: answers[-1]]), said[answers[-1]][1]


def _text(row: Row, name: str) -> str:
    if name not in row:
        raise ValueError(f"has no {name}; it has {', '.join(row) or 'none'}")
    value = row[name]
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, int | float):
        return str(value)
    raise ValueError(f"{name} holds a {type(value).__name__} and no text")

"""What shape a row has: the keys of Axolotl's by which it reads, where nobody has named them.

Each row is told by its own columns, so that a file may mix shapes. Columns are known by their
names, in any case; a row whose shape Axolotl has no type for is laid out anew (`shaped`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from envtune.data.batches import BadRow, Row

Keys = Mapping[str, Any]

# The type of rows that are laid out or masked by a template.
TEMPLATED = "envtune.engine.rows"
CHAT = "chat_template"
CHATS = ("messages", "conversations")
# The names of a turn's sides, in messages and in ShareGPT's conversations.
SIDES = (("role", "content"), ("from", "value"))
ASKED = ("prompt", "question", "query", "input", "instruction")
ANSWERED = ("completion", "response", "answer", "output")
_BESIDE = ("input", "context")
_PAIR = ("chosen", "rejected")
_KNOWN = (*CHATS, *ASKED, *ANSWERED, *_BESIDE, *_PAIR, "text", "system", "tools", "label")
# What says that a turn is not learned from.
_TRAINED = "training"


def told(row: Row) -> dict[str, Any]:
    """The keys that a row's columns tell. Raises BadRow where they tell none."""
    for name in CHATS:
        if name in row:
            return _chat(name, row[name])
    if "instruction" in row and "output" in row:
        return {"type": "alpaca"}
    if found := _question(row):
        return {"type": found}
    if "text" in row:
        return {"type": "completion", "field": "text"}
    raise BadRow("", "no shape that is known", unknown(row))


def detect(columns: Sequence[str]) -> dict[str, Any] | None:
    """The keys that columns alone tell, or None."""
    try:
        return told(dict.fromkeys(columns))
    except BadRow:
        return None


def _chat(name: str, turns: Any) -> dict[str, Any]:
    keys: dict[str, Any] = {"type": CHAT, "field_messages": name}
    first = turns[0] if isinstance(turns, list) and turns else None
    named = SIDES[name == "conversations"]
    if isinstance(first, Mapping):
        named = next((side for side in SIDES if side[0] in first), named)
        if _TRAINED in first:
            keys["message_field_training"] = _TRAINED
    if named != SIDES[0]:
        keys["message_property_mappings"] = dict(zip(SIDES[0], named, strict=True))
    return keys


def _question(row: Row) -> dict[str, str] | None:
    """A question and its answer, as a type of the user's own."""
    asked = next((name for name in ASKED if name in row), None)
    answered = next((name for name in ANSWERED if name in row), None)
    if asked is None or answered is None:
        return None
    more = next((n for n in _BESIDE if n in row and n != asked and asked == "instruction"), None)
    made = {
        "field_instruction": asked,
        "field_output": answered,
        "format": "{instruction}\n\n{input}" if more else "{instruction}",
        "no_input_format": "{instruction}",
    }
    return {**made, "field_input": more} if more else made


def unknown(row: Row) -> str:
    """What is said of a row whose columns do not tell how it reads."""
    columns = ", ".join(map(str, list(row)[:8])) or "none"
    what = f"its columns ({columns}) do not tell how it reads"
    if set(row) >= set(_PAIR):
        return (
            f"{what}: pairs of chosen and rejected need AXOLOTL_RL=dpo, or another that reads them"
        )
    return (
        f"{what}; known are messages, conversations, instruction and output, prompt and "
        "completion, question and answer, text"
    )


def wrapped(row: Row) -> str:
    """The name under which one object holds a list of rows, as exports do, or nothing."""
    if detect(list(shaped(row))):
        return ""
    lists = ((n, v[0]) for n, v in row.items() if isinstance(v, list) and v)
    return next((str(n) for n, first in lists if isinstance(first, Mapping) and _is_row(first)), "")


def _is_row(value: Row) -> bool:
    found = detect(list(shaped(value)))
    return bool(found) and found != {"type": "completion", "field": "text"}


def shaped(row: Row) -> Row:
    """The row with the names and the turns that `told` knows; the same one where it has them."""
    if not row.keys() & _KNOWN_SET:
        row = {_plain(name): value for name, value in row.items()}
    elif any(name not in _KNOWN_SET and _plain(name) in _KNOWN_SET for name in row):
        row = {n if _plain(n) in row else _plain(n): v for n, v in row.items()}
    prompt, answer = row.get("prompt"), row.get("completion")
    if isinstance(prompt, list) and isinstance(answer, list):
        return {**_without(row, ("prompt", "completion")), "messages": _turns(prompt, answer)}
    return row


def all_shaped(rows: Sequence[Row]) -> bool:
    """Whether `shaped` leaves rows as they are, where their names tell it."""
    return all(
        _KNOWN_SET.issuperset(names) and not {"prompt", "completion"} <= {*names}
        for names in set(map(tuple, rows))
    )


_KNOWN_SET = frozenset(_KNOWN)


def _plain(name: str) -> str:
    return name.strip().lower() if name.strip().lower() in _KNOWN_SET else name


def _without(row: Row, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


def _turns(prompt: list[Any], answer: list[Any]) -> list[Any]:
    """The turns of both, of which the answer's are learned. What is no turn stays, to be told."""
    several = ((prompt, False), (answer, True))
    return [
        {**turn, _TRAINED: on} if isinstance(turn, Mapping) else turn
        for turns, on in several
        for turn in turns
    ]

"""A row's prompt and answer by the keys of its data set, by a table."""

from typing import Any

import pytest

from envtune.data import pairs

CHAT = {"type": "chat_template", "field_messages": "messages"}
SHARE = {"type": "chat_template", "field_messages": "conversations",
         "message_property_mappings": {"role": "from", "content": "value"}}  # fmt: skip
TURNS = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"},
         {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]  # fmt: skip

ROWS: list[tuple[dict[str, Any], dict[str, Any], tuple[str, str]]] = [
    ({"type": "alpaca"}, {"instruction": "a", "input": "", "output": "b"}, ("a", "b")),
    ({"type": "alpaca"}, {"instruction": "a", "input": "c", "output": "b"}, ("a\n\nc", "b")),
    ({"type": "alpaca_chat.load_qa"}, {"question": "a", "answer": "b"}, ("a", "b")),
    ({"type": {"field_instruction": "x", "field_output": "y"}}, {"x": "a", "y": "b"}, ("a", "b")),
    ({"input_format": "Q: {{x}} {{ z }}\nA: {{y}}"}, {"x": "a", "z": 1, "y": "b"}, ("a\n1", "b")),
    ({"type": "completion"}, {"text": "a"}, ("", "a")),
    ({"field": "body"}, {"body": "a"}, ("", "a")),
    (CHAT, {"messages": TURNS}, ("s\na", "b")),
    (SHARE, {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
     ("a", "b")),
]  # fmt: skip
BAD: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({"type": "alpaca"}, {"title": "a"}, "columns missing", "has no output"),
    ({"type": "alpaca"}, {"instruction": ["a"], "output": "b"}, "columns missing", "holds a list"),
    ({"type": "alpaca"}, {"instruction": "a", "output": " "}, "no answer", "an empty answer"),
    ({"type": "alpaca"}, {"instruction": "a", "output": None}, "no answer", "an empty answer"),
    ({"input_format": "{{x}}{{y}}"}, {"x": "a"}, "columns missing", "has no y; it has x"),
    (CHAT, {"messages": "hello"}, "columns missing", "has no list of turns in messages"),
    (CHAT, {"messages": TURNS[:2]}, "columns missing", "has no turn of the assistant"),
    (CHAT, {"messages": [None]}, "columns missing", "has no list of turns"),
]  # fmt: skip


@pytest.mark.parametrize(("keys", "row", "found"), ROWS)
def test_each_way_to_read(
    keys: dict[str, Any], row: dict[str, Any], found: tuple[str, str]
) -> None:
    assert pairs.texts(row, keys) == found
    assert pairs.problem(row, keys) is None


@pytest.mark.parametrize(("keys", "row", "reason", "what"), BAD)
def test_a_row_that_cannot_be_trained_on_has_a_reason(
    keys: dict[str, Any], row: dict[str, Any], reason: str, what: str
) -> None:
    found = pairs.problem(row, keys)
    assert found is not None
    assert found[0] == reason
    assert what in found[1]

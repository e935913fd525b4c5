"""Rows of any columns as messages, or as a prompt and its completion."""

from typing import Any

import pytest

from envtune.data import conversion
from envtune.data.batches import BadRow, Batch

PAIR = {"prompt": "a", "completion": "b"}
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

ROWS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"prompt": "a", "completion": "b"}, PAIR),
    ({"input": "a", "output": "b"}, PAIR),
    ({"question": "a", "answer": "b", "id": 7}, PAIR),
    ({"prompt": "", "input": "a", "completion": None, "output": "b"}, PAIR),
    ({"prompt": "a", "completion": ""}, {"prompt": "a", "completion": ""}),
    ({"prompt": None, "completion": "b"}, {"prompt": "", "completion": "b"}),
    ({"prompt": 1, "completion": 2.5}, {"prompt": "1", "completion": "2.5"}),
    ({"instruction": "a", "input": "", "output": "b"}, PAIR),
    ({"instruction": "a", "input": "c", "output": "b"}, {"prompt": "a\n\nc", "completion": "b"}),
    ({"instruction": "a", "response": "b"}, PAIR),
    ({"text": "a"}, {"text": "a"}),
    ({"messages": TURNS, "prompt": "x"}, {"messages": TURNS}),
    ({"messages": None, **PAIR}, PAIR),
    ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, {"messages": TURNS}),
    ({"messages": [{"role": "tool", "content": "a", "name": "f"}]},
     {"messages": [{"role": "tool", "content": "a", "name": "f"}]}),
]  # fmt: skip
BAD: list[tuple[dict[str, Any], str]] = [
    ({"title": "a"}, "has no prompt or question or query or input or instruction; it has title"),
    ({"prompt": "a"}, "has no completion or response or answer or output; it has prompt"),
    ({}, "it has none"),
    ({"text": "a", "title": "b"}, "has no prompt"),
    ({"prompt": ["a"], "completion": "b"}, "prompt holds a list and no text"),
    ({"prompt": "a", "completion": {"b": 1}}, "completion holds an object and no text"),
    ({"messages": "hello"}, "its turns are a str and no list"),
    ({"messages": [["user", "a"]]}, "a turn has no role: ['user', 'a']"),
    ({"messages": [{"content": "a"}]}, "a turn has no role"),
]  # fmt: skip


def converted(row: dict[str, Any]) -> list[Any]:
    return list(conversion.converted([Batch("a.csv", [2, 5], [PAIR, row])]))


@pytest.mark.parametrize(("row", "made"), ROWS)
def test_each_row_by_its_columns(row: dict[str, Any], made: dict[str, Any]) -> None:
    assert converted(row) == [PAIR, made]


@pytest.mark.parametrize(("row", "told"), BAD)
def test_a_row_that_is_neither_is_told_with_its_line(row: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRow) as raised:
        converted(row)
    assert str(raised.value).startswith("a.csv:5: ")
    assert told in str(raised.value)


@pytest.mark.parametrize(("row", "made"), ROWS)
def test_what_is_converted_stays_as_it_is(row: dict[str, Any], made: dict[str, Any]) -> None:
    assert converted(made) == [PAIR, made]

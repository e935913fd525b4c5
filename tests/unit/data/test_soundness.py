"""How rows read by their own columns, what is wrong with them, and what they say."""

from typing import Any

import pytest

from envtune.data import sets, shapes, soundness
from envtune.data.verdicts import Verdict

TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
SHARE = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]

TOLD: list[tuple[dict[str, Any], dict[str, Any], tuple[str, str]]] = [
    ({"messages": TURNS}, {"type": "chat_template", "field_messages": "messages"}, ("a", "b")),
    ({"conversations": SHARE}, {"type": "chat_template", "field_messages": "conversations",
      "message_property_mappings": {"role": "from", "content": "value"}}, ("a", "b")),
    ({"conversations": TURNS}, {"type": "chat_template", "field_messages": "conversations"}, ("a", "b")),
    ({"messages": SHARE}, {"type": "chat_template", "field_messages": "messages",
      "message_property_mappings": {"role": "from", "content": "value"}}, ("a", "b")),
    ({"instruction": "a", "input": "c", "output": "b"}, {"type": "alpaca"}, ("a\nc", "b")),
    ({"Instruction": "a", "OUTPUT": "b"}, {"type": "alpaca"}, ("a", "b")),
    ({"text": "a"}, {"type": "completion", "field": "text"}, ("", "a")),
    ({"Text": "a"}, {"type": "completion", "field": "text"}, ("", "a")),
    ({"prompt": TURNS[:1], "completion": TURNS[1:]}, {"type": "chat_template",
      "field_messages": "messages", "message_field_training": "training"}, ("a", "b")),
]  # fmt: skip


@pytest.mark.parametrize(("row", "keys", "texts"), TOLD)
def test_a_rows_columns_tell_how_it_reads(
    row: dict[str, Any], keys: dict[str, Any], texts: tuple[str, str]
) -> None:
    row = dict(shapes.shaped(row))
    assert shapes.told(row) == keys
    assert soundness.problem(row, keys) is None
    assert soundness.texts(row, keys) == texts


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("prompt", "completion"), ("question", "answer"), ("input", "output"), ("query", "response"),
     ("prompt", "response"), ("instruction", "response")],
)  # fmt: skip
def test_a_question_and_its_answer_are_known_by_many_names(asked: str, answered: str) -> None:
    row = {asked: "a", answered: "b"}
    keys = shapes.told(row)
    assert (keys["type"]["field_instruction"], keys["type"]["field_output"]) == (asked, answered)
    assert soundness.texts(row, keys) == ("a", "b")


CHAT = {"type": "chat_template"}
BAD: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (CHAT, {"messages": None}, "messages is null"),
    (CHAT, {"messages": []}, "messages is an empty list"),
    (CHAT, {"messages": "hello"}, 'messages is a text, "hello", and no list of turns'),
    (CHAT, {"messages": {"role": "user"}}, "messages is an object and no list of turns"),
    (CHAT, {"message": TURNS}, "has no column messages; its columns are message"),
    (CHAT, {"Messages": TURNS}, "Messages is not messages: rename it"),
    (CHAT, {"messages": ["a"]}, 'messages[0] is a text, "a", and no object'),
    (CHAT, {"messages": [None]}, "messages[0] is null"),
    (CHAT, {"messages": [{"content": "a"}]}, "messages[0] has no role; it has content"),
    (CHAT, {"messages": [{"role": None, "content": "a"}]}, "messages[0] has no role"),
    (CHAT, {"messages": [*TURNS, {"role": "chatgpt", "content": "a"}]}, 'has the role "chatgpt"'),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages[0].content is null"),
    (CHAT, {"messages": [{"role": "user"}]}, "messages[0].content is not there"),
    (CHAT, {"messages": [{"role": 1, "content": "a"}]}, "messages[0].role is a number, 1"),
    (
        CHAT,
        {"messages": [{"role": "user", "content": [{"text": "a"}, 1]}]},
        "messages[0].content has a part that is a number, 1",
    ),
    (CHAT, {"messages": [{"role": "user", "content": [None]}]}, "a part that is null"),
    (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages[0].content is a number, 5"),
    ({"type": "alpaca"}, {"instruction": None, "output": "b"}, "instruction is null"),
    ({"type": "alpaca"}, {"instruction": "a"}, "has no column output"),
    ({"type": "alpaca"}, {"instruction": ["a"], "output": "b"}, 'instruction is a list, ["a"]'),
    ({"type": "alpaca"}, {"instruction": "a", "output": {"x": 1}}, "output is an object"),
    ({"type": "alpaca"}, {"instruction": "a", "input": 3, "output": "b"}, "input is a number, 3"),
    ({"type": "alpaca"}, {"instruction": "a", "output": True}, "output is a flag, true"),
    ({"type": "completion"}, {"text": None}, "text is null"),
    ({"type": "completion", "field": "body"}, {"text": "a"}, "has no column body"),
    ({"type": "completion"}, {"text": 1.5}, "text is a number, 1.5"),
    ({"type": {"field_instruction": "q"}}, {"x": "a", "output": "b"}, "has no column q"),
    ({"type": "input_output"}, {"segments": []}, "segments is no list of objects"),
    (
        {"type": "input_output"},
        {"segments": [{"text": "a"}]},
        "segments[0] is no object with a text",
    ),
    (
        {"type": "alpaca_w_system.load_chat"},
        {"instruction": "a", "output": "b"},
        "has no column system",
    ),
    ({"type": shapes.TEMPLATED, "input_format": "{{q}}: {{a}}"}, {"q": "x"}, "has no column a"),
    ({"type": shapes.TEMPLATED}, {"texts": "x"}, "has no column text"),
]


@pytest.mark.parametrize(("keys", "row", "what"), BAD)
def test_what_cannot_be_trained_on_is_said(
    keys: dict[str, Any], row: dict[str, Any], what: str
) -> None:
    told = soundness.problem(row, keys)
    assert told is not None
    assert what in told[1]
    assert "\n" not in told[1]


IDLE = [
    (CHAT, {"messages": TURNS[:1]}, "no answer in it"),
    (CHAT, {"messages": [{"role": "assistant", "content": ""}]}, "no answer in it"),
    (CHAT, {"messages": TURNS}, ""),
    ({"type": "alpaca"}, {"instruction": "a", "output": ""}, "an empty answer"),
    ({"type": "alpaca"}, {"instruction": "a", "output": None}, "an empty answer"),
    ({"type": "completion"}, {"text": " "}, "an empty answer"),
]


@pytest.mark.parametrize(("keys", "row", "why"), IDLE)
def test_rows_that_teach_nothing_are_sound_and_counted(
    keys: dict[str, Any], row: dict[str, Any], why: str
) -> None:
    assert soundness.problem(row, keys) is None
    assert soundness.idle(row, keys) == why


def test_a_verdict_names_the_first_and_counts_all(tmp_path: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(
        '{"text": "a"}\n{"x": 1}\nno\n{"text": null}\n{"prompt": "a", "completion": ""}\n'
    )
    verdict = Verdict(most=2)
    verdict.look(sets.of({"path": str(path)}, [str(path)], untyped=True))
    assert (verdict.rows, verdict.wrong, verdict.mixed) == (5, 3, True)
    lines = list(verdict.lines())
    assert len(lines) == 3
    assert lines[-1].startswith("3 of 5 rows cannot be trained on: ")
    assert "nothing is learned from 1 of 2 rows: an empty answer" in list(verdict.notes())

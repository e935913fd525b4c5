"""Rows for tests of what they become: conversations, and texts that break a careless rule."""

import json
import random
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[2] / "shared" / "data"

_WORDS = [
    "the", "model", "answers", "a", "question", "about", "12", "apples,", "3.5", "miles", "and",
    "Zürich", "in", "2024", "don't", "well-known",
]  # fmt: skip
# A prefix of a stand-in, borders of white space, marks that templates look for, half of a token.
HOSTILE = [
    "", " ", "\n", "[", "z", "[[dummy", "zzdummymessagezz", "]]", " a", "a ", "\n\na\n", "\t", "a\u00a0",
    "</s>", "<s>x", "<|im_end|>", "<|im_start|>assistant\n", "<think>a</think>b", "</think>", "<image>", "\u2581", "a\u2581b",
    "🗼", "e\u0301", "東京 タワー", "\u200b", "\x00", "<|end", "[INST] a [/INST]", "{{ messages }}", "{% if %}", "\r\n", "ﬁ",
]  # fmt: skip


def text(dice: random.Random) -> str:
    """A text of some words, one in three with something hostile in it."""
    words = [dice.choice(_WORDS) for _ in range(dice.randrange(1, 25))]
    if dice.random() < 0.33:
        words.insert(dice.randrange(len(words) + 1), dice.choice(HOSTILE))
    return dice.choice(HOSTILE) if dice.random() < 0.08 else " ".join(words)


def conversation(dice: random.Random) -> dict[str, Any]:
    """Messages of one to six turns, with a system, reasoning and tools now and then."""
    messages: list[dict[str, Any]] = []
    if dice.random() < 0.3:
        messages.append({"role": "system", "content": text(dice)})
    for _ in range(dice.randrange(1, 4)):
        messages.append({"role": dice.choice(["user", "user", "human"]), "content": text(dice)})
        answer: dict[str, Any] = {"role": "assistant", "content": text(dice)}
        if dice.random() < 0.15:
            answer["reasoning_content"] = text(dice)
        if dice.random() < 0.2:
            answer["train"] = dice.random() < 0.5
        messages.append(answer)
    return {"messages": messages}


def with_tools(dice: random.Random) -> dict[str, Any]:
    """A conversation in which a tool is called."""
    arguments = {"b": dice.randrange(9), "a": text(dice), "c": [1.0, None, True]}
    function = {
        "name": "look",
        "arguments": json.dumps(arguments) if dice.random() < 0.5 else arguments,
    }
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"type": "string"}}}
    return {
        "messages": [
            {"role": "user", "content": text(dice)},
            {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdefghi", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "abcdefghi", "name": "look", "content": json.dumps({"n": 3})},
            {"role": "assistant", "content": text(dice)},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": schema}}],
    }  # fmt: skip


def conversations(dice: random.Random, count: int, *, tools: bool = False) -> list[dict[str, Any]]:
    return [with_tools(dice) if tools and not i % 9 else conversation(dice) for i in range(count)]


def instructions(dice: random.Random, count: int) -> list[dict[str, Any]]:
    """Rows of the columns of alpaca, some of them empty, null or not there."""
    rows = []
    for _ in range(count):
        row: dict[str, Any] = {"instruction": text(dice), "output": text(dice)}
        if dice.random() < 0.4:
            row["input"] = dice.choice([text(dice), "", None])
        rows.append(row)
    return rows


def jsonl(path: Path, count: int | None = None) -> list[dict[str, Any]]:
    with path.open() as stream:
        return [json.loads(line) for line in stream][:count]

"""Ends of turns: what is set, and what is refused because no answer would learn to stop."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envtune.checks import turns as checked
from envtune.errors import Exit
from envtune.resolve import turns
from envtune.resolve.config import Facts
from envtune.resolve.facts import DataFacts, TokenizerFacts, read_tokenizer
from tests.unit.builders import CPU, load, make_facts

CHATS = (DataFacts("/chats.jsonl", True, ("messages",), "json"),)
SETS = [{"path": "/chats.jsonl"}]
END, EOS = "<|im_end|>", "</s>"


def seen(tokenizer: TokenizerFacts) -> Facts:
    return replace(make_facts(CPU), data=CHATS, tokenizer=tokenizer)


def told(words: set[str], eos: str = EOS, template: str = "", **chosen: Any) -> list[turns.Turn]:
    facts = seen(TokenizerFacts(eos, frozenset(words), template))
    return list(turns.untrained({"datasets": SETS, **chosen}, facts))


def test_an_end_of_turn_that_is_a_token_is_set() -> None:
    facts = seen(TokenizerFacts(EOS, frozenset({END, EOS})))
    choice = turns.end_of_turn(facts, {"datasets": SETS, "chat_template": "chatml"})
    assert choice is not None
    assert choice.value == [END]
    assert choice.reason == f"chatml ends a turn with {END}, the tokenizer a text with {EOS}"


@pytest.mark.parametrize(
    ("words", "chosen", "known"),
    [
        ({END}, {"chat_template": "chatml"}, [True]),
        (set(), {"chat_template": "chatml"}, [False]),
        (set(), {"chat_template": "tokenizer_default_fallback_chatml"}, [False]),
        (set(), {"chat_template": "chatml", "tokens": [END]}, [True]),
        (set(), {"chat_template": "chatml", "special_tokens": {"eos_token": END}}, []),
        (set(), {"chat_template": "chatml", "eot_tokens": ["</s>"]}, []),
        (set(), {"chat_template": "chatml", "train_on_inputs": True}, []),
        (set(), {"chat_template": "alpaca"}, []),
        (set(), {"chat_template": "mistral_v1"}, []),
        (set(), {"chat_template": "chatml", "datasets": [{"path": "/a", "type": "alpaca"}]}, []),
        (set(), {"chat_template": "chatml", "datasets": [{**SETS[0], "train_on_eos": "none"}]}, []),
        (set(), {"datasets": [{**SETS[0], "chat_template": "llama3"}]}, [False]),
    ],
)
def test_what_the_template_the_tokenizer_and_the_user_say(
    words: set[str], chosen: dict[str, Any], known: list[bool]
) -> None:
    assert [turn.known for turn in told(words, **chosen)] == known


@pytest.mark.parametrize(
    ("template", "found"),
    [
        ("{{ m }}<|im_end|>", [END]),
        ("{{ m }}{{ eos_token }} <|im_end|>", []),
        ("{{ m }}</s><|im_end|>", []),
        ("{{ m }}", []),
    ],
)
def test_the_tokenizers_own_template_tells_its_end(template: str, found: list[str]) -> None:
    assert [turn.end for turn in told({END}, template=template)] == found


def test_every_named_template_of_axolotl_is_known() -> None:
    import axolotl.utils.chat_templates as own

    folder = Path(own.__file__).parent / "templates"
    for path in folder.glob("*.jinja"):
        source = path.read_text()
        end = turns.ENDS.get(path.stem)
        assert (end is None) == ("eos_token" in source or path.stem == "llava"), path.stem
        assert end is None or end in source, path.stem


def test_a_tokenizer_is_read_without_its_vocabulary(tmp_path: Path) -> None:
    assert read_tokenizer(str(tmp_path)) is None
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": EOS}}))
    whole = {"version": "1.0", "added_tokens": [{"id": 0, "content": EOS}], "model": {"vocab": {}}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole) + "x" * 10)
    (tmp_path / "chat_template.jinja").write_text("a")
    assert read_tokenizer(str(tmp_path)) == TokenizerFacts(EOS, frozenset({EOS}), "a")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert read_tokenizer(str(tmp_path)) is None


def refused(environ: dict[str, str], words: set[str]) -> list[Any]:
    """What the check says of chats that are laid out as `environ` has it."""
    facts = seen(TokenizerFacts(EOS, frozenset(words)))
    base = {"AXOLOTL_BASE_MODEL": "/base", "AXOLOTL_DATASETS": json.dumps(SETS)}
    return list(checked.problems(load({**base, **environ}), facts))


def test_no_answer_that_would_never_stop_is_trained() -> None:
    [problem] = refused({"AXOLOTL_CHAT_TEMPLATE": "chatml"}, set())
    assert (problem.name, problem.exit) == ("AXOLOTL_CHAT_TEMPLATE", Exit.DATA)
    assert f"AXOLOTL_SPECIAL_TOKENS__EOS_TOKEN={END}" in problem.message
    assert refused({"AXOLOTL_CHAT_TEMPLATE": "chatml"}, {END}) == []
    assert refused({"AXOLOTL_CHAT_TEMPLATE": "chatml", "AXOLOTL_RL": "dpo"}, set()) == []


def test_a_layout_that_is_named_is_there() -> None:
    for named in ("0", "chats.jsonl", "/chats.jsonl"):
        assert refused({"SFT_CHAT_LAYOUT": named}, set()) == []
    [problem] = refused({"SFT_CHAT_LAYOUT": "hats.jsonl"}, set())
    assert str(problem).startswith(
        "SFT_CHAT_LAYOUT: hats.jsonl is none of the data sets: 0 (/chats"
    )

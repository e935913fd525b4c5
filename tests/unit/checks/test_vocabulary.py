"""Tokenizers of another vocabulary than the model's, and rows that are tokens of one."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envtune.checks import vocabulary
from envtune.resolve.facts import read_data
from tests.unit.builders import load, make_facts

WORDS = {"a": 0, "b": 1, "c": 2}


def tokenizer(folder: Path, tokens: Any, *added: str) -> Path:
    folder.mkdir()
    more = [{"content": text, "id": len(tokens) + n} for n, text in enumerate(added)]
    (folder / "tokenizer.json").write_text(
        json.dumps({"added_tokens": more, "model": {"vocab": tokens}})
    )
    (folder / "config.json").write_text(json.dumps({"vocab_size": 4}))
    return folder


def told(tmp_path: Path, other: Any, **more: str) -> list[str]:
    tokenizer(tmp_path / "base", WORDS, "<s>")
    environ = {
        "AXOLOTL_BASE_MODEL": str(tmp_path / "base"), "AXOLOTL_TOKENIZER_CONFIG": str(other),
        "AXOLOTL_DATASETS": '[{"path": "acme/rows", "type": "alpaca"}]', **more,
    }  # fmt: skip
    return [str(problem) for problem in vocabulary.problems(load(environ), make_facts())]


def test_a_tokenizer_of_another_vocabulary_is_refused_with_both_digests(tmp_path: Path) -> None:
    other = tokenizer(tmp_path / "other", {"a": 1, "b": 0, "c": 2}, "<s>")
    [line] = told(tmp_path, other)
    assert line.startswith("AXOLOTL_TOKENIZER_CONFIG: is of another vocabulary than the model's: ")
    assert line.count(" (4 tokens)") == 2
    assert "SFT_FORCE_TOKENIZER=true" in line


def test_it_is_taken_where_one_insists(tmp_path: Path) -> None:
    other = tokenizer(tmp_path / "other", {"x": 0})
    assert not told(tmp_path, other, SFT_FORCE_TOKENIZER="true")


@pytest.mark.parametrize(
    "tokens", [WORDS, [["a", 0.0], ["b", -1.0], ["c", -2.0]]], ids=["BPE", "Unigram"]
)
def test_one_that_has_more_tokens_or_tells_nothing_is_taken(tmp_path: Path, tokens: Any) -> None:
    assert not told(tmp_path, tokenizer(tmp_path / "more", tokens, "<s>", "<|im_end|>"))
    (tmp_path / "base").rename(tmp_path / "away")
    (tmp_path / "none").mkdir()
    assert not told(tmp_path, tmp_path / "none")


ROWS = [
    ({"tokenizer": {"sha256": "ab" * 32, "vocab_size": 4}}, {"tokenizer": {"sha256": "ab" * 32}}, ""),
    (
        {"tokenizer_metadata": {"tokenizer_sha256": "ab" * 32, "vocab_size": 4}},
        {"tokenizer": {"sha256": "cd" * 32, "vocab_size": 4}},
        "holds tokens of another vocabulary: {0} has abababababababab (4 tokens), {1} has cdcdcdcdcdcdcdcd",
    ),
    (
        {"tokenizer": {"sha256": "ab" * 32, "vocab_size": 5}},
        None,
        "holds tokens of a larger vocabulary than the model's 4: {0} has abababababababab (5 tokens)",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("first", "second", "line"), ROWS, ids=["one", "two", "larger"])
def test_rows_that_are_tokens_are_of_the_models_vocabulary(
    tmp_path: Path, first: Any, second: Any, line: str
) -> None:
    tokenizer(tmp_path / "base", WORDS)
    paths = []
    for name, manifest in (("first", first), ("second", second)):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "rows.jsonl"
        path.write_text('{"input_ids": [1], "labels": [1], "attention_mask": [1]}\n')
        if manifest:
            (tmp_path / name / "manifest.json").write_text(json.dumps(manifest))
        paths.append(str(path))
    items = [{"path": path, "ds_type": "json"} for path in paths]
    environ = {"AXOLOTL_BASE_MODEL": str(tmp_path / "base"), "AXOLOTL_DATASETS": json.dumps(items)}
    facts = replace(make_facts(vocab_size=4), data=read_data(items))
    found = [str(problem) for problem in vocabulary.problems(load(environ), facts)]
    assert len(found) == bool(line)
    assert line.format(*paths) in "".join(found)

"""Rows of another vocabulary are told with both digests and the way out."""

from typing import Any

import pytest

from envtune.data import vocabularies
from envtune.data.vocabularies import Vocabulary

ONE, SAME = Vocabulary("the model", "ab" * 32, 32768), Vocabulary("b", "ab" * 32)
OTHER = Vocabulary("data/c", "cd" * 32, 50257)


@pytest.mark.parametrize("others", [[], [SAME], [ONE, SAME]])
def test_one_vocabulary_is_nothing_to_tell(others: list[Vocabulary]) -> None:
    assert vocabularies.mismatch(ONE, others) == ""


def test_another_one_is_one_line() -> None:
    assert vocabularies.mismatch(ONE, [SAME, OTHER]) == (
        f"tokenizers differ: the model has {'ab' * 8} (32,768 tokens), data/c has {'cd' * 8} "
        "(50,257 tokens); prepare data/c again with this tokenizer: `envtune prepare --force`"
    )


@pytest.mark.parametrize(
    ("manifest", "found"),
    [
        ({}, None),
        ({"tokenizer_metadata": None}, None),
        ({"tokenizer_metadata": {"tokenizer_sha256": ""}}, None),
        ({"tokenizer_metadata": {"tokenizer_sha256": "AB" * 32}}, Vocabulary("d", "ab" * 32)),
        (
            {"tokenizer_metadata": {"tokenizer_sha256": "cd" * 32, "vocab_size": 7}},
            Vocabulary("d", "cd" * 32, 7),
        ),
        ({"tokenizer_metadata": {"tokenizer_sha256": 5}}, None),
        ({"tokenizer": {"sha256": "cd" * 32, "vocab_size": 7}}, Vocabulary("d", "cd" * 32, 7)),
    ],
)
def test_what_a_manifest_says(manifest: dict[str, Any], found: Vocabulary | None) -> None:
    assert vocabularies.of_manifest("d", manifest) == found

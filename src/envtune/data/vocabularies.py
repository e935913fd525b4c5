"""Whether rows that are tokens already were cut by one vocabulary: the model's.

Ids of another vocabulary are other words: a training would run, and learn noise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# A digest as people compare it; the whole one stands in the manifest.
_SHOWN = 16


@dataclass(frozen=True)
class Vocabulary:
    """The tokenizer of one data set, or of the model: where it was told, its SHA-256, and how many
    tokens it has."""

    where: str
    sha256: str
    size: int | None = None

    def __str__(self) -> str:
        tokens = f" ({self.size:,} tokens)" if self.size is not None else ""
        return f"{self.where} has {self.sha256[:_SHOWN]}{tokens}"


def of_manifest(where: str, manifest: Mapping[str, Any]) -> Vocabulary | None:
    """What a manifest.json says of the tokenizer, envtune's own or the industrial pipeline's; None
    where its rows are no tokens."""
    told = manifest.get("tokenizer") or manifest.get("tokenizer_metadata") or {}
    digest = told.get("sha256", told.get("tokenizer_sha256"))
    size = told.get("vocab_size")
    if not isinstance(digest, str) or not digest:
        return None
    return Vocabulary(where, digest.lower(), size if isinstance(size, int) else None)


def mismatch(first: Vocabulary, others: Iterable[Vocabulary]) -> str:
    """What to say where one is not the `first`, with both digests and the way out; else nothing."""
    other = next((one for one in others if one.sha256 != first.sha256), None)
    if other is None:
        return ""
    return (
        f"tokenizers differ: {first}, {other}; prepare {other.where} again with this tokenizer: "
        "`envtune prepare --force`"
    )

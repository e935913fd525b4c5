"""Whether ids mean to the model what they meant to whoever made them.

With another vocabulary nothing fails: the model reads other words, and learns noise.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.artifacts import modelfiles
from envtune.errors import Exit, Problem
from envtune.resolve.config import Facts
from envtune.resolve.facts import DataFacts
from envtune.settings.own.training import FORCE_TOKENIZER
from envtune.settings.typed import Settings

_TOKENS = "input_ids"
_SHOWN = 16


@dataclass(frozen=True)
class _Vocabulary:
    """Where it is told, its digest, and how many tokens it has."""

    where: str
    sha256: str
    size: int | None

    def __str__(self) -> str:
        tokens = f" ({self.size:,} tokens)" if self.size else ""
        return f"{self.where} has {self.sha256[:_SHOWN]}{tokens}"


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    if settings.get(FORCE_TOKENIZER):
        return
    yield from _of_tokenizer(settings)
    yield from _of_rows(settings, facts)


def _of_tokenizer(settings: Settings) -> Iterator[Problem]:
    """A tokenizer that has not all of the model's own tokens at their ids; more are added ones."""
    own, base = settings.axolotl.get("tokenizer_config"), settings.axolotl["base_model"].value
    if own is None or not own.value or own.value == base:
        return
    ours, its = _tokens(str(own.value)), _tokens(str(base))
    if not ours or not its or its.items() <= ours.items():
        return
    both = ", ".join(str(_digested(where, t)) for where, t in ((base, its), (own.value, ours)))
    what = f"is of another vocabulary than the model's: {both}; leave it out"
    yield Problem(
        own.name, f"{what}, or set {FORCE_TOKENIZER}=true where all embeddings are trained"
    )


def _tokens(path: str) -> dict[str, int]:
    """A local tokenizer's tokens and their ids; none where its files do not tell."""
    if not os.path.isabs(path):
        return {}
    try:
        told = modelfiles.read_json(Path(path) / "tokenizer.json")
        vocabulary, added = told["model"]["vocab"], told.get("added_tokens") or ()
        if isinstance(vocabulary, list):  # Unigram: pieces with their scores, in order
            vocabulary = {piece: number for number, (piece, _) in enumerate(vocabulary)}
        return {**vocabulary, **{token["content"]: token["id"] for token in added}}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def _digested(where: str, tokens: dict[str, int]) -> _Vocabulary:
    text = json.dumps(sorted(tokens.items()))
    return _Vocabulary(where, hashlib.sha256(text.encode()).hexdigest(), len(tokens))


def _of_rows(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Rows that are tokens already: of two vocabularies, or of more tokens than the model has."""
    given = settings.axolotl.get("datasets")
    told = [(index, of) for index, data in enumerate(facts.data) if (of := _of_manifest(data))]
    if given is None or not told:
        return
    first, size = told[0][1], facts.model.config.get("vocab_size")
    for index, one in told:
        if one.sha256 != first.sha256:
            what = f"holds tokens of another vocabulary: {first}, {one}; prepare both with one"
        elif isinstance(size, int) and one.size and one.size > size:
            what = f"holds tokens of a larger vocabulary than the model's {size:,}: {one}"
        else:
            continue
        fix = f"{what}, or set {FORCE_TOKENIZER}=true"
        yield Problem(given.at(index, "path"), fix, Exit.DATA)


def _of_manifest(data: DataFacts) -> _Vocabulary | None:
    """What the manifest.json beside a data set's tokens says of their tokenizer, ours or the
    industrial pipeline's; None where there is none, or its rows are no tokens."""
    if _TOKENS not in data.columns:
        return None
    path = Path(data.path)
    try:
        told: dict[str, Any] = modelfiles.read_json(
            (path if os.path.isdir(path) else path.parent) / "manifest.json"
        )
    except (OSError, ValueError):
        return None
    of = told.get("tokenizer") or told.get("tokenizer_metadata")
    if not isinstance(of, dict):
        return None
    digest, size = of.get("sha256", of.get("tokenizer_sha256")), of.get("vocab_size")
    known = isinstance(digest, str) and digest
    return (
        _Vocabulary(data.path, str(digest), size if isinstance(size, int) else None)
        if known
        else None
    )

"""Ids of many texts at once, and where each token lies in its text.

fastokens makes them in a tenth of the time of Hugging Face's library. It is taken where it is
known to make the same of the tokenizer at hand, and `proved` compares the two on rows of each
batch: a difference ends in Hugging Face's library for all rows.
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from envtune.engine.data.shape import Shape, in_bytes
from envtune.engine.data.tokenizer import Loaded

# Rows of the first batch that are compared, at random and with odd characters, and of a later one.
_FIRST, _ODD, _LATER = 64, 128, 4
_LONGEST = 2
# The first ids of a batch, which say the rows of it that are compared.
_SEED = 256


class Differs(Exception):
    """fastokens made other ids of a row than Hugging Face's library: (text, reason)."""


@dataclass(frozen=True)
class Encoded:
    """Ids of texts, one after another. Text i has ids[splits[i]:splits[i + 1]]."""

    ids: Any  # int32
    splits: Any  # int64, one more than texts


@dataclass(frozen=True)
class Places:
    """Where tokens begin and end, in one array for all texts: those of text i are counted from
    origin[i], in characters, or in bytes of which `space` stands for a space of SentencePiece."""

    starts: Any
    ends: Any
    origin: Any
    space: str | None = None

    def at(self, text: str, character: int) -> int:
        """A place in a text, as tokens have it."""
        return character if self.space is None else in_bytes(text[:character], self.space)


class Backend:
    """A tokenizer's ids. `slow`: why Hugging Face's library makes them, or None."""

    def __init__(self, loaded: Loaded, slow: str | None = None) -> None:
        import numpy as np

        self.np = np
        self.loaded = loaded
        self.shape = Shape(loaded.backend)
        self.fast: Any = None
        self.slow = slow
        if not slow:
            self.fast, self.slow = _fastokens(self.shape)
        self.compared = 0

    @property
    def settled(self) -> bool:
        """Whether it is decided who encodes: by Hugging Face's library, or on rows compared."""
        return self.fast is None or self.compared > 0

    @functools.cached_property
    def exact(self) -> Any:
        """Hugging Face's tokenizer."""
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(self.loaded.backend)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def ids(self, text: str) -> list[int]:
        """A text's ids, with nothing added."""
        found: list[int] = self.exact.encode(text, add_special_tokens=False).ids
        return found

    @functools.cached_property
    def never_cut(self) -> frozenset[str]:
        """Texts that are one token wherever they stand."""
        added = json.loads(self.loaded.backend).get("added_tokens") or ()
        return frozenset(str(token["content"]) for token in added)

    @functools.cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The ids that the post-processor puts before a text and after it."""
        bare, full = (self.exact.encode("a", add_special_tokens=on).ids for on in (False, True))
        begun = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return full[:begun], full[begun + len(bare) :]

    @functools.cached_property
    def after(self) -> int:
        """How many ids the post-processor adds after a text."""
        return len(self.around[1])

    def encode(self, texts: Sequence[str], *, special: bool) -> Encoded:
        """Ids with or without what the post-processor adds. Raises UnicodeEncodeError for a text
        that has half of a surrogate pair."""
        np = self.np
        if self.fast is None:
            found = [e.ids for e in self.exact.encode_batch_fast(texts, add_special_tokens=special)]
            splits = np.cumsum([0, *map(len, found)], dtype=np.int64)
            flat = [token for ids in found for token in ids]
            return Encoded(np.array(flat, np.int32), splits)
        if self.shape.metaspace:
            texts = self.shape.prefixed(texts)
        ids, splits = self.fast.encode_batch_flat(texts, add_special_tokens=special)
        return Encoded(np.frombuffer(ids, np.int32), np.frombuffer(splits, np.int64))

    def prove(self, texts: Sequence[str], made: Encoded, *, special: bool) -> None:
        """Compares rows of a batch with Hugging Face's library: the same ones of the same batch,
        whoever encodes it. Raises Differs."""
        if self.fast is None or not texts:
            return
        dice = Random(made.ids[:_SEED].tobytes())
        count, odd_ones = (_LATER, _LATER) if self.compared else (_FIRST, _ODD)
        seen = dice.sample(range(len(texts)), min(count + odd_ones * 4, len(texts)))
        odd = [i for i in seen if not self.shape.plain(texts[i])]
        longest = self.np.argsort(self.np.diff(made.splits))[-_LONGEST:].tolist()
        chosen = {*seen[:count], *longest, *odd[:odd_ones]}
        rows = [texts[i] for i in sorted(chosen)]
        exact = self.exact.encode_batch_fast(rows, add_special_tokens=special)
        for i, row in zip(sorted(chosen), exact, strict=True):
            if row.ids != made.ids[made.splits[i] : made.splits[i + 1]].tolist():
                raise Differs(texts[i])
        self.compared += len(rows)

    def places(self, texts: Sequence[str], made: Encoded) -> Places:
        """Where each token of texts that were encoded without special tokens lies."""
        np = self.np
        if self.fast is None or self.shape.lengths is None:
            return self._exact_places(texts)
        sizes = self.shape.lengths[made.ids]
        ends = np.cumsum(sizes)
        starts = ends - sizes
        origin = np.concatenate([[0], ends])[made.splits[:-1]]
        whole = np.concatenate([[0], ends])[made.splits[1:]] - origin
        added = [self.shape.is_prefixed(text) for text in texts]
        space = self.shape.space
        if (whole - added != [in_bytes(text, space) for text in texts]).any():
            return self._exact_places(texts)
        if self.shape.trims:
            before, after = self.shape.trims
            starts, ends = (
                np.minimum(starts + before[made.ids], ends),
                np.maximum(ends - after[made.ids], np.minimum(starts + before[made.ids], ends)),
            )
        if any(added):
            self._without_prefix(made, starts, ends, origin, np.array(added))
        return Places(starts, ends, origin, space)

    def _without_prefix(self, made: Encoded, starts: Any, ends: Any, origin: Any, on: Any) -> None:
        """Takes the space away that is before a text's first token and not in the text. A first
        token that is nothing else keeps the place of the text's first character, as there."""
        first = made.splits[:-1][on]
        starts[first] += 1
        lone = ends[first] == starts[first]
        origin[on] += 1
        ends[first[lone]] += 1

    def _exact_places(self, texts: Sequence[str]) -> Places:
        np = self.np
        found = self.exact.encode_batch(texts, add_special_tokens=False)
        pairs = [row.offsets for row in found]
        # A text's first place is after all of the text before it.
        origin = np.cumsum([0, *(len(text) for text in texts)], dtype=np.int64)[:-1]
        flat = np.array([pair for row in pairs for pair in row], np.int64).reshape(-1, 2)
        base = np.repeat(origin, [len(row) for row in pairs])
        return Places(flat[:, 0] + base, flat[:, 1] + base, origin)


def _fastokens(shape: Shape) -> tuple[Any, str | None]:
    """fastokens' tokenizer, or None and why."""
    import fastokens

    if shape.parts["model"].get("dropout"):
        return None, "the tokenizer drops merges by chance"
    parts = shape.rewritten()
    if parts is None:
        return None, "its Metaspace is of a kind that fastokens has not"
    try:
        text = shape.text if parts is shape.parts else json.dumps(parts)
        return fastokens.Tokenizer.from_json_str(text), None
    except ValueError as error:
        return None, str(error)

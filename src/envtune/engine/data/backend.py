"""Ids of many texts at once, and where each token lies in its text.

fastokens makes them in a tenth of the time of Hugging Face's library. It is taken where it is
known to make the same of the tokenizer at hand, and `proved` compares the two on rows of each
batch: a difference ends in Hugging Face's library for all rows.
"""

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from envtune.engine.data.tokenizer import Loaded

# Stands for a space in SentencePiece's vocabularies.
_SPACE = "\u2581"
# Rows of the first batch that are compared, at random and with odd characters, and of a later one.
_FIRST, _ODD, _LATER = 64, 128, 4
_LONGEST = 2


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
        return character if self.space is None else _bytes(text[:character], self.space)


class Backend:
    """A tokenizer's ids. `slow`: why Hugging Face's library makes them, or None."""

    def __init__(self, loaded: Loaded, *, fast: bool = True) -> None:
        import numpy as np

        self.np = np
        self.loaded = loaded
        self.shape = _Shape(loaded.backend)
        self.fast: Any = None
        self.slow: str | None = "not by fastokens"
        if fast:
            self.fast, self.slow = _fastokens(self.shape)
        self.compared = 0

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
    def after(self) -> int:
        """How many ids the post-processor adds after a text."""
        bare, full = (self.exact.encode("a", add_special_tokens=on).ids for on in (False, True))
        begun = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
        return len(full) - begun - len(bare)

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
            texts = [self.shape.prefixed(text) for text in texts]
        ids, splits = self.fast.encode_batch_flat(texts, add_special_tokens=special)
        return Encoded(np.frombuffer(ids, np.int32), np.frombuffer(splits, np.int64))

    def prove(self, texts: Sequence[str], made: Encoded, dice: Random, *, special: bool) -> None:
        """Compares rows of a batch with Hugging Face's library. Raises Differs."""
        if self.fast is None or not texts:
            return
        count = _LATER if self.compared else _FIRST
        seen = dice.sample(range(len(texts)), min(count + _ODD * 4, len(texts)))
        odd = [i for i in seen if not self.shape.plain(texts[i])]
        longest = self.np.argsort(self.np.diff(made.splits))[-_LONGEST:].tolist()
        chosen = {*seen[:count], *longest, *(odd[: _ODD if not self.compared else _LATER])}
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
        if (whole - added != [_bytes(text, space) for text in texts]).any():
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


def _bytes(text: str, space: str) -> int:
    return len(text) if text.isascii() else len(text.replace(_SPACE, space).encode())


class _Shape:
    """What a tokenizer is made of, as far as it decides what fastokens may do."""

    def __init__(self, text: str) -> None:
        import orjson

        self.text = text
        parts: dict[str, Any] = orjson.loads(text)
        self.parts = parts
        self.added = [token["content"] for token in parts["added_tokens"]]
        pre = _flat(parts["pre_tokenizer"], "pretokenizers")
        self.metaspace = any(part["type"] == "Metaspace" for part in pre)
        self.byte_level = any(part["type"] == "ByteLevel" for part in pre)
        self.space = " " if self.metaspace else _SPACE
        longest_first = sorted(self.added, key=len)[::-1]
        self._found = re.compile("|".join(map(re.escape, longest_first)) or "$.")

    def plain(self, text: str) -> bool:
        """Whether a text has no character and no token that is worth a comparison."""
        return text.isascii() and not self._found.search(text)

    def is_prefixed(self, text: str) -> bool:
        """Whether a text gets a space before it that it has not."""
        return bool(
            self.metaspace
            and text
            and not text.startswith((" ", _SPACE))
            and not self._found.match(text)
        )

    def prefixed(self, text: str) -> str:
        return _SPACE + text if self.is_prefixed(text) else text

    def rewritten(self) -> dict[str, Any] | None:
        """The same tokenizer in parts that fastokens knows, or None where that is not known."""
        if not self.metaspace:
            return self.parts
        (metaspace,) = _flat(self.parts["pre_tokenizer"], "pretokenizers")
        known = {"replacement": _SPACE, "prepend_scheme": "first", "split": False}
        same = all(metaspace.get(key) == value for key, value in known.items())
        odd = ("lstrip", "rstrip", "single_word")
        added = self.parts["added_tokens"]
        if not same or self.parts["normalizer"] or any(t[key] for t in added for key in odd):
            return None
        space = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
        tokens = [{**token, "normalized": False} for token in added]
        changed = {"normalizer": space, "pre_tokenizer": None, "added_tokens": tokens}
        return {**self.parts, **changed}

    @functools.cached_property
    def lengths(self) -> Any:
        """By id: how many bytes of a text a token covers, or None where its text is changed."""
        import numpy as np

        pre = _flat(self.parts["pre_tokenizer"], "pretokenizers")
        if self.parts["normalizer"] or any(part.get("add_prefix_space") for part in pre):
            return None
        if not (self.byte_level or self.metaspace):
            return None
        vocabulary = self.parts["model"]["vocab"]
        tokens = self.parts["added_tokens"]
        added = {token["id"]: len(token["content"].encode()) for token in tokens}
        lengths = np.zeros(max([*vocabulary.values(), *added]) + 1, np.int64)
        for token, number in vocabulary.items():
            lengths[number] = _covered(token) if self.metaspace else len(token)
        for number, length in added.items():
            lengths[number] = length
        return lengths

    @functools.cached_property
    def trims(self) -> Any:
        """By id: spaces at a token's start and end that its place leaves out, where it does."""
        import numpy as np

        post = _flat(self.parts["post_processor"], "processors")
        if not any(part["type"] == "ByteLevel" and part.get("trim_offsets") for part in post):
            return None
        tokens = {number: token for token, number in self.parts["model"]["vocab"].items()}
        tokens |= {token["id"]: token["content"] for token in self.parts["added_tokens"]}
        before, after = np.zeros((2, max(tokens) + 1), np.int64)
        for number, token in tokens.items():
            text = token.replace("\u0120", " ")
            before[number] = len(text) - len(text.lstrip())
            after[number] = len(text) - len(text.rstrip())
        return before, after


def _covered(token: str) -> int:
    if re.fullmatch("<0x[0-9A-F]{2}>", token):
        return 1
    return len(token.replace(_SPACE, " ").encode())


def _flat(part: dict[str, Any] | None, inner: str) -> list[dict[str, Any]]:
    """The parts of a sequence, or the one part."""
    if part is None:
        return []
    return part[inner] if part["type"] == "Sequence" else [part]


def _fastokens(shape: _Shape) -> tuple[Any, str | None]:
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

"""What a tokenizer is made of, as far as it decides what fastokens may do with it."""

import functools
import re
from collections.abc import Sequence
from typing import Any

# Stands for a space in SentencePiece's vocabularies.
_SPACE = "\u2581"


def in_bytes(text: str, space: str) -> int:
    """A text's length in bytes, with `space` for SentencePiece's stand-in."""
    return len(text) if text.isascii() else len(text.replace(_SPACE, space).encode())


class Shape:
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

    def prefixed(self, texts: Sequence[str]) -> list[str]:
        """Texts with the space that they get, as `rewritten` reads it: of ASCII where they are."""
        odd = self._odd
        return [
            f" {text}" if text[:1] not in odd or self.is_prefixed(text) else text for text in texts
        ]

    @functools.cached_property
    def _odd(self) -> frozenset[str]:
        """How texts begin that may get no space."""
        return frozenset(("", " ", _SPACE, *(token[0] for token in self.added if token)))

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

"""Rows that train the same text twice, told exactly.

A row is the same where how it reads, its prompt and its answer are: other columns do not count.
Two digests of 128 bits that are equal mean equal rows (for 10^9 rows, one chance in 10^21 of an
error). Memory is bounded, whatever the rows: a million digests are held as they
come, 170 MB at their most; each million before is a sorted file without a name, 16 bytes a row,
looked up by halves.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

_BYTES = 16
_HELD = 1 << 20

DUPLICATE = "the same as a row before"


def digest(keys: Mapping[str, Any], prompt: str, answer: str) -> bytes:
    """What tells a row from others: 16 bytes."""
    # A length before each part: ("ab", "c") is not ("a", "bc"). A lone surrogate is a text too.
    made = blake2b(digest_size=_BYTES)
    for part in (json.dumps(keys, sort_keys=True, default=str), prompt, answer):
        text = part.encode("utf-8", "surrogatepass")
        made.update(len(text).to_bytes(8, "big"))
        made.update(text)
    return made.digest()


class Seen:
    """The digests so far. `held` of them lie in memory, the others in temporary files."""

    def __init__(self, held: int = _HELD) -> None:
        self._most, self._recent = held, set[bytes]()
        self._files: list[Any] = []

    def fresh(self, digests: Sequence[bytes]) -> list[bool]:
        """Whether each was not seen before, nor earlier in the list; they are seen from now on."""
        found = []
        for one, old in zip(digests, self._on_disk(digests), strict=True):
            found.append(not old and one not in self._recent)
            if found[-1]:
                self._recent.add(one)
        if len(self._recent) >= self._most:
            self._put_aside()
        return found

    def _on_disk(self, digests: Sequence[bytes]) -> Sequence[bool]:
        if not self._files or not digests:
            return [False] * len(digests)
        import numpy

        asked = numpy.array(digests, dtype=f"S{_BYTES}")
        old: Any = numpy.zeros(len(asked), dtype=bool)
        for sorted_ in self._files:
            at = numpy.minimum(numpy.searchsorted(sorted_, asked), len(sorted_) - 1)
            old |= sorted_[at] == asked
        return list(map(bool, old))

    def _put_aside(self) -> None:
        import numpy

        made = numpy.sort(numpy.array(list(self._recent), dtype=f"S{_BYTES}"))
        with tempfile.TemporaryFile(prefix="envtune-") as stream:
            made.tofile(stream)
            stream.flush()
            self._files.append(numpy.memmap(stream, dtype=made.dtype, mode="r"))
        self._recent.clear()

"""Rows on their way: written as they come, read back in the order in which they are trained.

A shuffle needs every row's place and no row's ids. These wait in memory while they are few, else
in a file without a name, so that the memory does not grow with the data and a killed preparation
leaves nothing.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from envtune.engine.data.types.made import Made

# Rows that are read back at once.
_BATCH = 4000
# Bytes of ids that are held: 50 million of them.
_HELD = 200 << 20
# Of a row: where it begins in the file, how many ids it has and how many of them are kept, how
# many of these are trained, and whether the last that is trained is an end of a turn.
_TABLE = [("start", "i8"), ("size", "i4"), ("kept", "i4"), ("trained", "i4"), ("closed", "?")]


@dataclass(frozen=True)
class Rows:
    """Rows that can be read in any order. `table` has one entry a row, in their first order;
    `held` has all ids where no `stream` has them."""

    stream: Any
    held: bytearray
    table: Any

    def read(self, order: Any) -> Iterator[tuple[Any, Any]]:
        """Rows by their numbers, some thousand at once: their ids as Made has them, and lengths."""
        import numpy as np

        for begin in range(0, len(order), _BATCH):
            some = self.table[order[begin : begin + _BATCH]]
            lengths = some["kept"].astype(np.int64)
            starts = some["start"] * 4
            places = zip(starts.tolist(), (starts + lengths * 4).tolist(), strict=True)
            yield np.frombuffer(self._bytes(places), np.int32), lengths

    def _bytes(self, places: Iterable[tuple[int, int]]) -> bytes:
        if self.stream is None:
            whole = memoryview(self.held)
            return b"".join([whole[start:end] for start, end in places])
        handle = self.stream.fileno()
        return b"".join([os.pread(handle, end - start, start) for start, end in places])


class Spill:
    """Takes the rows of one split. Of rows that are shorter or longer than they may be no ids
    are kept; with `cut`, of the longer ones the first `longest`."""

    def __init__(self, folder: Path, shortest: int, longest: int, *, cut: bool) -> None:
        self.folder, self.held = folder, bytearray()
        self.stream: IO[bytes] | None = None
        self.shortest, self.longest, self.cut = shortest, longest, cut
        self.parts: list[Any] = []
        self.written = 0

    def add(self, made: Made) -> None:
        import numpy as np

        sizes = np.diff(made.splits)
        out = (sizes < self.shortest) | ((sizes > self.longest) & (not self.cut))
        kept = np.where(out, 0, np.minimum(sizes, self.longest))
        numbers = made.coded
        if (kept != sizes).any():
            place = np.arange(len(numbers)) - np.repeat(made.splits[:-1], sizes)
            numbers = numbers[place < np.repeat(kept, sizes)]
        part: Any = np.zeros(len(sizes), _TABLE)
        ends = np.cumsum(kept)
        part["size"], part["kept"], part["start"] = sizes, kept, self.written + ends - kept
        part["trained"], last = _trained(numbers, ends, kept)
        part["closed"] = (part["trained"] == 0) | np.isin(last, list(made.ends or last))
        self._keep(numbers.data.cast("B"))
        self.parts.append(part)
        self.written += len(numbers)

    def _keep(self, data: memoryview) -> None:
        if self.stream is None and len(self.held) + len(data) > _HELD:
            self.stream = tempfile.TemporaryFile(dir=self.folder)  # noqa: SIM115  # lives on
            self.stream.write(self.held)
            self.held = bytearray()
        if self.stream is None:
            self.held += data
        else:
            self.stream.write(data)

    def close(self) -> Rows:
        """All that was taken."""
        import numpy as np

        if self.stream is not None:
            self.stream.flush()
        return Rows(self.stream, self.held, np.concatenate([np.zeros(0, _TABLE), *self.parts]))


def _trained(numbers: Any, ends: Any, kept: Any) -> tuple[Any, Any]:
    """How many ids of each row are trained, and the last of them."""
    import numpy as np

    trained, last = np.zeros((2, len(kept)), np.int32)
    filled = kept > 0
    if not filled.any():
        return trained, last
    on = numbers >= 0
    trained[filled] = np.add.reduceat(on, (ends - kept)[filled], dtype=np.int32)
    last[filled] = numbers[ends[filled] - 1]
    if (last[trained > 0] < 0).any():
        places = np.flatnonzero(on)
        last[trained > 0] = numbers[places[np.cumsum(trained)[trained > 0] - 1]]
    return trained, last

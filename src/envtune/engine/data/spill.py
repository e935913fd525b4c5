"""Rows on their way: written as they come, read back in the order in which they are trained.

A shuffle needs every row's place and no row's ids: these wait in a file without a name, so that
the memory does not grow with the data and a killed preparation leaves nothing.
"""

import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.engine.data.types.made import Made

# Rows that are read back at once.
_BATCH = 4000
# Of a row: where it begins in the file, how many ids it has and how many of them are kept, how
# many of these are trained, and whether the last that is trained is an end of a turn.
_TABLE = [("start", "i8"), ("size", "i4"), ("kept", "i4"), ("trained", "i4"), ("closed", "?")]


@dataclass(frozen=True)
class Rows:
    """Rows that can be read in any order. `table` has one entry a row, in their first order."""

    stream: Any
    table: Any

    def read(self, order: Any) -> Iterator[tuple[Any, Any]]:
        """Rows by their numbers, some thousand at once: their ids as Made has them, and lengths."""
        import numpy as np

        handle = self.stream.fileno()
        for begin in range(0, len(order), _BATCH):
            some = self.table[order[begin : begin + _BATCH]]
            lengths = some["kept"].astype(np.int64)
            borders = np.concatenate([[0], np.cumsum(lengths)]).tolist()
            room = bytearray(borders[-1] * 4)
            whole = memoryview(room)
            for (first, last), start in zip(
                itertools.pairwise(borders), some["start"].tolist(), strict=True
            ):
                os.preadv(handle, [whole[first * 4 : last * 4]], start * 4)
            yield np.frombuffer(room, np.int32), lengths


class Spill:
    """Takes the rows of one split. Of rows that are shorter or longer than they may be no ids
    are kept; with `cut`, of the longer ones the first `longest`."""

    def __init__(self, folder: Path, shortest: int, longest: int, *, cut: bool) -> None:
        self.stream = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  # lives as long as this
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
        trained = np.flatnonzero(numbers >= 0)
        until = np.searchsorted(trained, ends)
        part["trained"] = np.diff(until, prepend=0)
        part["closed"] = True
        if made.ends and len(trained):
            last = numbers[trained[np.maximum(until - 1, 0)]]
            part["closed"] = (part["trained"] == 0) | np.isin(last, list(made.ends))
        self.stream.write(numbers.data)
        self.parts.append(part)
        self.written += len(numbers)

    def close(self) -> Rows:
        """All that was taken."""
        import numpy as np

        self.stream.flush()
        return Rows(self.stream, np.concatenate([np.zeros(0, _TABLE), *self.parts]))

"""Says how far the reading of files is, for whoever started this process to show."""

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from envtune.data.batches import Batch
from envtune.engine.data.making import Way

# Seconds between two lines.
_EVERY = 1.0
_OPEN = "/proc/self/fd"


class Progress:
    """Files that are read one after another, each perhaps more than once."""

    def __init__(self, files: Sequence[str]) -> None:
        self.before: dict[str, tuple[int, int]] = {}  # what comes before each, and its own bytes
        self.total = 0
        for path in map(os.path.realpath, files):
            size = os.path.getsize(path) if os.path.isfile(path) else 0
            self.before[path] = (self.total, size)
            self.total += size
        self.rows, self.said = 0, time.monotonic()

    def watched(self, ways: Iterator[Way]) -> Iterator[Way]:
        """The same rows."""
        for keys, batch in ways:
            self.rows += len(batch.rows)
            if time.monotonic() > self.said + _EVERY:
                self.said = time.monotonic()
                self._say(batch)
            yield keys, batch

    def _say(self, batch: Batch) -> None:
        path = os.path.realpath(batch.source)
        before, size = self.before.get(path, (0, 0))
        done = before + min(_position(path), size)
        print(f"prepare: {self.rows} rows: {done} of {self.total}", flush=True)


def _position(path: str) -> int:
    """How many bytes of an open file are read, packed ones too: the kernel knows, whoever reads.
    0 for a table, of which pieces are read where they lie."""
    for number in os.listdir(_OPEN):
        try:
            if os.readlink(f"{_OPEN}/{number}") == path:
                return int(Path(f"/proc/self/fdinfo/{number}").read_text().split()[1])
        except OSError:  # closed meanwhile, as the one that lists them
            continue
    return 0

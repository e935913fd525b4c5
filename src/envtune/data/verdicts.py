"""What became of rows that are looked at: how they read, what is wrong, what teaches nothing."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from envtune.data import shapes, soundness
from envtune.data.batches import BadRow
from envtune.data.reading import json_rows, sampling
from envtune.data.sets import Source

# Of an error's kind so many rows are named.
FIRST = 10


@dataclass
class Verdict:
    """The rows of data sets. `bad` holds the first that are wrong, `reasons` counts all of them,
    `idle` those from which nothing is learned, `shapes` how rows read."""

    most: int = FIRST
    rows: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    idle: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)
    mixed: bool = False  # rows of one data set read in several ways

    def tell(self, bad: BadRow) -> None:
        """Counts a row that is wrong."""
        self.rows += 1
        self.reasons[bad.reason] += 1
        if len(self.bad) < self.most:
            self.bad.append(bad)

    def look(self, source: Source, rows: int | None = None, seconds: float = math.inf) -> None:
        """Looks at the rows of a data set, all or the first; what ends the reading is told last."""
        end, before = time.monotonic() + seconds, self.rows
        ways: set[str] = set()
        try:
            for batch in source.batches(self.tell, rows):
                for index, row in enumerate(batch.rows):
                    keys = source.keys(row)
                    if told := source.problem(row, keys):
                        self.tell(BadRow(batch.where(index), *told))
                        continue
                    self.rows += 1
                    self.shapes[name := shape(keys)] += 1
                    ways.add(name)
                    if why := soundness.idle(row, keys):
                        self.idle[why] += 1
                if time.monotonic() > end or (rows is not None and self.rows - before >= rows):
                    break
        except BadRow as bad:
            self.tell(bad)
        self.mixed |= len(ways) > 1

    def sample(self, source: Source, seconds: float) -> None:
        """Looks at rows here and there in the files that have a row a line, the same ones of the
        same files."""
        end = time.monotonic() + seconds
        for file in source.files if source.most is None else ():
            for start, line in sampling.lines(file, source.item.get("ds_type")):
                if time.monotonic() > end:
                    return
                self._look_at(source, file, start, line)

    def _look_at(self, source: Source, file: str, start: int, line: bytes) -> None:
        try:
            row = json_rows.row(line, start, file)
            if source.untyped:
                row = shapes.shaped(row)
            told = source.problem(row, source.keys(row))
        except BadRow as bad:
            told = bad.reason, bad.what
        where = f"{file}:{sampling.number(file, start)}" if told else ""
        if told and where not in [one.where for one in self.bad]:
            self.tell(BadRow(where, *told))

    @property
    def wrong(self) -> int:
        return sum(self.reasons.values())

    def lines(self) -> Iterator[str]:
        """The first rows that are wrong, and how many of each kind there are."""
        yield from map(str, self.bad)
        if self.wrong > len(self.bad):
            kinds = ", ".join(f"{n:,} x {reason}" for reason, n in self.reasons.most_common())
            yield f"{self.wrong:,} of {self.rows:,} rows cannot be trained on: {kinds}"

    def notes(self) -> Iterator[str]:
        """What is right and worth a word."""
        sound = self.rows - self.wrong
        for why, count in self.idle.most_common():
            yield f"nothing is learned from {count:,} of {sound:,} rows: {why}"
        if len(self.shapes) > 1:
            yield "rows read in several ways: " + self.told()

    def told(self) -> str:
        """How many rows read in which way."""
        return ", ".join(f"{count:,} as {name}" for name, count in self.shapes.most_common())


def shape(keys: Mapping[str, Any]) -> str:
    """A name for how a row reads."""
    kind = keys.get("type")
    if isinstance(kind, Mapping):
        asked, answered = (kind.get(f"field_{side}") for side in ("instruction", "output"))
        return f"{asked or 'instruction'} and {answered or 'output'}"
    if kind == "chat_template":
        return str(keys.get("field_messages") or "messages")
    return "a template" if kind == "envtune.engine.rows" else str(kind or "text")

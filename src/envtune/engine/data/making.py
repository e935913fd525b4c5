"""Ids of batches of rows: the same ones, whoever makes them.

What the slower libraries make of the first rows that read alike decides who lays out and encodes
the others. It is decided in one process; whoever makes more of them is told of it.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from envtune.data.batches import BadRow, Batch
from envtune.engine.data.backend import Backend
from envtune.engine.data.types.made import Made, Strategy
from envtune.engine.data.types.strategies import strategy
from envtune.engine.data.types.templates import Template

Keys = Mapping[str, Any]
# Rows that read alike, and how.
Way = tuple[Keys, Batch]


@dataclass(frozen=True)
class Task:
    """A batch whose rows read alike, and why jinja2 lays them out, or None."""

    keys: Keys
    batch: Batch
    slow: str | None


@dataclass(frozen=True)
class Done:
    """What became of a batch: ids, and the rows that have none."""

    made: Made
    bad: tuple[BadRow, ...]


class Crew(Protocol):
    """Whoever makes the ids of all rows."""

    def made(self, rows: Iterator[Way]) -> Iterator[Done]:
        """In the order of the rows. Raises Beyond, Differs, Refused."""

    def close(self) -> None:
        """Ends what helped."""


class Maker:
    """Makes ids of rows under one configuration. `seconds`: of this process, spent on it."""

    def __init__(self, config: Mapping[str, Any], backend: Backend) -> None:
        self.config, self.backend = config, backend
        self.known: dict[str, Strategy] = {}
        self.seconds = 0.0

    def make(self, keys: Keys, batch: Batch) -> Done:
        """Raises Beyond, Differs."""
        before = time.process_time()
        bad: list[BadRow] = []
        made = self._strategy(keys).make(batch, bad.append)
        self.seconds += time.process_time() - before
        return Done(made, tuple(bad))

    def task(self, keys: Keys, batch: Batch) -> Task | None:
        """The batch for another process, or None while this one has to decide on such rows."""
        template = _template(self._strategy(keys))
        if not self.backend.settled or (template and not template.settled):
            return None
        return Task(keys, batch, template.slow if template else None)

    def carry_out(self, task: Task) -> Done:
        """Makes what another process has decided on."""
        if template := _template(self._strategy(task.keys)):
            template.settle(task.slow)
        return self.make(task.keys, task.batch)

    def slow(self) -> list[str]:
        """What is made by the slower libraries, and why."""
        why = [one.slow for made in self.known.values() if (one := _template(made)) and one.slow]
        lines = [self.backend.slow] if self.backend.slow else []
        return lines + [f"jinja2 renders: {reason}" for reason in dict.fromkeys(why)]

    def _strategy(self, keys: Keys) -> Strategy:
        name = repr(sorted(keys.items(), key=str))
        if name not in self.known:
            self.known[name] = strategy(keys, self.config, self.backend)
        return self.known[name]


def _template(made: Strategy) -> Template | None:
    """What lays out a chat."""
    found: Template | None = getattr(made, "template", None)
    return found

"""What a run may cost: hours and dollars over all its starts, kept in the run's folder.

The count is written while the run works, so that a killed start has been counted too. When
it reaches a limit the run is stopped as by a signal.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from envtune import files
from envtune.errors import Exit
from envtune.machine import runpod
from envtune.resolve.config import RunConfig
from envtune.runs.contents import BUDGET
from envtune.settings.own.place import MAX_HOURS, MAX_USD, PRICE
from envtune.supervise.stage import LOG, Context, Ended

_HOUR = 3600.0
# Seconds between two writes: what a killed start may lose.
_BEAT = 10.0


@dataclass(frozen=True)
class Spent:
    """What a run has used in all its starts. `usd` counts the starts whose price was known."""

    seconds: float = 0.0
    usd: float = 0.0
    starts: int = 0


@dataclass(frozen=True)
class Limits:
    """Hours and dollars at most, None for no limit; `price` in dollars an hour."""

    hours: float | None = None
    usd: float | None = None
    price: float = 0.0

    def left(self, spent: Spent) -> tuple[float, str]:
        """Seconds until the first limit, negative behind it, and the line that tells of it."""
        ends = []
        if self.hours is not None:
            text = f"{MAX_HOURS}: {self.hours:g} hours are used up"
            ends.append((self.hours * _HOUR - spent.seconds, text))
        if self.usd is not None:
            text = f"{MAX_USD}: {self.usd:g} dollars at {self.price:g} an hour are used up"
            ends.append(((self.usd - spent.usd) / self.price * _HOUR, text))
        return min(ends)


def read(folder: Path) -> Spent:
    """What the run in a folder has used; nothing where nobody has counted."""
    try:
        return spent_of(files.read_json(folder / BUDGET))
    except FileNotFoundError:
        return Spent()


def spent_of(told: Mapping[str, Any]) -> Spent:
    """A count as JSON holds it. Raises ValueError or TypeError where it is none."""
    spent = Spent(**told)
    return Spent(float(spent.seconds), float(spent.usd), int(spent.starts))


class Budget:
    """Counts while a run works, and stops it at a limit. Raises Ended where one is behind it."""

    def __init__(self, context: Context) -> None:
        self.context, self.folder = context, context.run.folder
        self.limited = any(context.config.setting(name) for name in (MAX_HOURS, MAX_USD))
        self.done = threading.Event()

    def __enter__(self) -> "Budget":
        if not self.limited:
            return self
        self.limits = limits(self.context.config, self.context.environ)
        before = read(self.folder)
        left, text = self.limits.left(before)
        if left <= 0:
            raise Ended(Exit.BUDGET, f"{text} over {before.starts} starts; raise it to go on")
        self.before, self.started = replace(before, starts=before.starts + 1), time.monotonic()
        self.context.stops.limit, self.context.stops.budget = self.started + left, text
        LOG.info("budget: %.2f hours are left (%s)", left / _HOUR, text.partition(":")[0])
        self._write()
        self.thread = threading.Thread(target=self._count, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.limited:
            self.done.set()
            self.thread.join()

    def _count(self) -> None:
        """Counts until the end and once more. How the run has ended is not to be lost by it."""
        over = False
        while not over:
            over = self.done.wait(_BEAT)
            try:
                self._write()
            except OSError as error:
                LOG.warning("budget: %s cannot be written: %s", BUDGET, error.strerror)

    def _write(self) -> None:
        seconds = time.monotonic() - self.started
        spent = replace(
            self.before,
            seconds=self.before.seconds + seconds,
            usd=self.before.usd + seconds / _HOUR * self.limits.price,
        )
        files.write_json(self.folder / BUDGET, asdict(spent))


def limits(config: RunConfig, environ: Mapping[str, str]) -> Limits:
    """The limits, with the pod's price where dollars are limited. Raises Ended."""
    usd, price = config.setting(MAX_USD), config.setting(PRICE)
    if usd is not None and price is None:
        price = _asked(environ)
    return Limits(config.setting(MAX_HOURS), usd, price or 0.0)


def _asked(environ: Mapping[str, str]) -> float:
    fix = f"set {PRICE} to what an hour costs"
    here = runpod.this(environ)
    if here is None:
        raise Ended(Exit.CONFIG, f"{MAX_USD}: no price is known; {fix}")
    try:
        state = here.state()
    except runpod.Denied as error:
        raise Ended(Exit.ACCESS, f"{MAX_USD}: the pod's price: {error}; {fix}") from error
    except (runpod.Refusal, runpod.Unreached) as error:
        raise Ended(Exit.NETWORK, f"{MAX_USD}: the pod's price: {error}; {fix}") from error
    if state is None or not state.price:
        raise Ended(Exit.CONFIG, f"{MAX_USD}: RunPod tells no price of {here.id}; {fix}")
    return state.price

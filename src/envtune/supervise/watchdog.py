"""Tells a training that hangs: nothing new from it in many times what a step takes.

Only time in which this process looked counts. One that was stopped, or a machine that was
suspended, finds the training as it left it and gives it all its time again.
"""

import math
import time
from collections.abc import Callable

from envtune.channel import FINAL, STEP, Outcome
from envtune.supervise.process import Over

# A look later than this is none, seconds: nobody looked before it.
_LATE = 5.0
# How much longer may take what has no measure: libraries, a model, the first step, an
# evaluation's batch, a save.
_LONGER = 12.0
_DOING = {"": "step", STEP: "step"}


class Hung(Over):
    """The training hangs: since when, and who is where."""


class Watchdog:
    """`factor` is how many median steps one may take, and `floor` what it may take at least, in
    seconds. `clock` only moves forward."""

    def __init__(
        self, factor: float, floor: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.factor, self.floor, self.clock = factor, floor, clock
        self.seen: Outcome | None = None
        self.quiet, self.looked = 0.0, clock()

    def look(self, outcome: Outcome | None, *, stopped: bool) -> str | None:
        """What has not come in time, or None. `stopped`: a process of the training is."""
        now = self.clock()
        passed, self.looked = now - self.looked, now
        new = outcome != self.seen
        self.seen = outcome
        if new or (outcome is not None and outcome.state in FINAL):
            self.quiet = 0.0
        elif passed < _LATE:
            self.quiet += passed
        allowed = self.floor if stopped else self._allowed(outcome)
        return _told(outcome, self.quiet) if self.quiet > allowed else None

    def _allowed(self, outcome: Outcome | None) -> float:
        if outcome is not None and outcome.state == "data":
            return math.inf  # rows may be made for hours, and nobody knows how many
        measured = outcome is not None and outcome.state == "training" and outcome.step_seconds
        if outcome is None or not measured or outcome.doing != STEP:
            return _LONGER * self.floor
        return max(self.floor, self.factor * outcome.step_seconds)


def _told(outcome: Outcome | None, quiet: float) -> str:
    if outcome is None or outcome.state != "training":
        return f"nothing for {quiet:.0f} s before the first step"
    what = _DOING.get(outcome.doing, f"end of the {outcome.doing}")
    usual = f" where one takes {outcome.step_seconds:.2g} s" if what == "step" else ""
    return f"no {what} for {quiet:.0f} s{usual if outcome.step_seconds else ''}"

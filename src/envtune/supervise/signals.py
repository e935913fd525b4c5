"""SIGTERM, SIGINT, SIGHUP and the end of a budget: noted, and acted on where it is safe."""

import math
import signal
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import ClassVar

# What is left of the grace for records after the child has ended, seconds.
_RESERVE = 2.0
# Seconds to save when a budget ends: nobody outside counts them, and none may be lost.
_UNHURRIED = 300.0


@dataclass
class StopSignals:
    """SIGTERM and SIGINT as they come in. `grace` seconds from the first to the end.

    `limit` is when the budget that `budget` tells of ends, on the monotonic clock. `came`
    tells of any stop of this process, since a server that is stopped ends well.
    """

    came: ClassVar[bool] = False

    grace: float = 25.0
    received: list[int] = field(default_factory=list)
    first: float = 0.0
    limit: float = math.inf
    budget: str = ""

    def install(self) -> "StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.first = time.monotonic()
        self.received.append(number)
        StopSignals.came = True

    def relay(self) -> None:
        """A stop that was asked for on another node."""
        self._note(signal.SIGTERM, None)

    @property
    def asked(self) -> bool:
        return bool(self.received) or self.exhausted

    @property
    def exhausted(self) -> bool:
        """Whether the budget ended before anybody asked for a stop."""
        return self.limit <= (self.first if self.received else time.monotonic())

    @property
    def interrupted(self) -> bool:
        """Whether it was somebody at a keyboard."""
        return self.received[:1] == [signal.SIGINT]

    def deadline(self) -> float:
        """When the child must be gone; each further signal quarters what is left."""
        if not self.received:
            return self.limit + max(self.grace, _UNHURRIED)
        budget = max(self.grace - _RESERVE, 0.5)
        return self.first + budget / 4.0 ** (len(self.received) - 1)

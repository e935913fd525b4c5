"""What a training tells of its pace, so that somebody who watches can tell a hang from a long step.

Times are of this process's monotonic clock: a clock that is set, or a machine that was
suspended, makes no step longer.
"""

import faulthandler
import os
import signal
import statistics
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from envtune import channel

# Steps of which the median is told.
_STEPS = 50


def register(run_dir: Path, rank: int) -> None:
    """Makes this rank known, and has SIGUSR1 write where each of its threads is behind its name.

    The file stays open: a handler that ran for want of memory could not open it.
    """
    folder = run_dir / channel.RANKS
    folder.mkdir(exist_ok=True)
    stream = (folder / str(rank)).open("w")
    stream.write(f"{channel.process_stamp(os.getpid())}\n")
    stream.flush()
    faulthandler.register(signal.SIGUSR1, stream, all_threads=True)


class Beats(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Tells what is done at the moment, and how long a step takes."""

    def __init__(self, note: Callable[..., None]) -> None:
        self.note, self.count = note, 0
        self.last: float | None = None
        self.steps: deque[float] = deque(maxlen=_STEPS)

    def _beat(self, doing: str) -> None:
        self.count += 1
        pace = round(statistics.median(self.steps), 4) if self.steps else 0.0
        self.note(doing=doing, beats=self.count, step_seconds=pace)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.monotonic()
        if self.last is not None:  # the first compiles, and loads what the others have
            self.steps.append(now - self.last)
        self.last = now
        self._beat(_next(control))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._beat(_next(control))

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._beat(channel.EVALUATION)

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._resume(control)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._resume(control)

    def _resume(self, control: Any) -> None:
        """What lies between two steps is no part of the second one."""
        self.last = time.monotonic()
        self._beat(channel.SAVE if control.should_save else channel.STEP)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._beat(channel.SAVE)


def _next(control: Any) -> str:
    """What the Trainer does after it has asked its callbacks: it evaluates first."""
    if control.should_evaluate:
        return channel.EVALUATION
    return channel.SAVE if control.should_save else channel.STEP

"""What a training will run out of while it runs, told once and before it does."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from envtune import files
from envtune.channel import Outcome
from envtune.machine import hardware
from envtune.supervise.progress import amount

# Seconds between two looks, and the share of the memory that is nearly all.
_LOOK = 10.0
_NEARLY = 0.9


class Shortage:
    """Looks at the volume of a run and at the container's memory."""

    def __init__(self, run_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.run_dir, self.clock = run_dir, clock
        self.looked = -_LOOK
        self.told: set[str] = set()

    def look(self, outcome: Outcome | None) -> Iterator[str]:
        """What was not told before, at most every few seconds."""
        if self.clock() < self.looked + _LOOK:
            return
        self.looked = self.clock()
        for what, line in (("disk", self._disk(outcome)), ("memory", _memory())):
            if line and what not in self.told:
                self.told.add(what)
                yield line

    def _disk(self, outcome: Outcome | None) -> str:
        free = files.free(self.run_dir)
        if outcome is None or free is None or free >= outcome.bytes_to_come:
            return ""
        return (
            f"{self.run_dir}: the disk will be full before the end: checkpoints of "
            f"{amount(outcome.checkpoint_bytes)} need {outcome.bytes_to_come:,} bytes more, and "
            f"{free:,} are free; free space, or lower AXOLOTL_SAVE_TOTAL_LIMIT at the next start"
        )


def _memory() -> str:
    used, limit = hardware.memory_used()
    if used < _NEARLY * limit:
        return ""
    return (
        f"the host's memory is nearly used up: {amount(used)} of {amount(limit)}; where it is, the "
        "kernel ends the training; give the container more, or lower "
        "AXOLOTL_DATALOADER_NUM_WORKERS and AXOLOTL_DATASET_NUM_PROC"
    )

"""Ids that are made by processes of this machine; this one reads the rows and writes the ids.

A preparation that is over in seconds is over before others have begun, so these join when it takes
longer, and only where making ids is most of the work.
"""

import ctypes
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor  # noqa: TID251  # of one function
from concurrent.futures.process import BrokenProcessPool

from envtune.engine.data.making import Done, Maker, Task, Way
from envtune.errors import Exit, Problem, Refused

# Seconds of this process's before others join, where nobody says how many they are.
_PATIENCE = 2.0
# What making ids has to be of all that this process does, reading and writing among it.
_SHARE = 0.5
# Batches on their way to and from one process.
_AHEAD = 3
_PR_SET_PDEATHSIG = 1
# What the processes begin with: they are copies of the one that sets it.
_MAKERS: list[Maker] = []


class Processes:
    """`workers`: how many make ids, from the beginning on, 1 being this process; None: as many as
    `cores` leave beside it, when it takes long enough."""

    def __init__(self, maker: Maker, workers: int | None, cores: int) -> None:
        self.maker = maker
        self.workers = workers or max(1, cores - 1)
        self.alone = workers == 1
        self.patience = _PATIENCE if workers is None else 0.0
        self.pool: ProcessPoolExecutor | None = None

    def made(self, rows: Iterator[Way]) -> Iterator[Done]:
        """In the order of the rows. Raises Beyond, Differs, Refused."""
        waiting: deque[Future[Done]] = deque()
        for keys, batch in rows:
            task = self.maker.task(keys, batch) if self._has_joined() else None
            if task is None:
                yield from _results(waiting, 0)
                yield self.maker.make(keys, batch)
                continue
            waiting.append(self._begun().submit(_carry_out, task))
            yield from _results(waiting, _AHEAD * self.workers)
        yield from _results(waiting, 0)

    def close(self) -> None:
        """Ends the processes."""
        if self.pool:
            self.pool.shutdown(wait=True, cancel_futures=True)

    def _has_joined(self) -> bool:
        if self.alone or self.maker.seconds < self.patience:
            return False
        return bool(self.pool) or not self.patience or _is_most(self.maker.seconds)

    def _begun(self) -> ProcessPoolExecutor:
        """The processes, which begin with all that this one has loaded."""
        if self.pool is None:
            _MAKERS[:] = [self.maker]
            fork = multiprocessing.get_context("fork")
            self.pool = ProcessPoolExecutor(self.workers, fork, _tie, (os.getpid(),))
        return self.pool


def _is_most(seconds: float) -> bool:
    """Whether making ids is most of what this process does: else handing rows on costs more."""
    return seconds > _SHARE * time.process_time()


def _tie(parent: int) -> None:
    """Lets this process end with the one that it works for, however that ends (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _carry_out(task: Task) -> Done:
    return _MAKERS[0].carry_out(task)


def _results(waiting: deque[Future[Done]], most: int) -> Iterator[Done]:
    """The first results, until no more than `most` are waited for."""
    while len(waiting) > most:
        try:
            yield waiting.popleft().result()
        except BrokenProcessPool:
            what = "a process that made ids was ended from outside, as where memory is short"
            fix = "AXOLOTL_DATASET_NUM_PROC=1 makes them in one process"
            raise Refused([Problem("", f"{what}; {fix}", Exit.MEMORY)]) from None

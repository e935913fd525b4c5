"""The right to train a run: a lock that dies with its holder, and a beat.

The lock tells processes of one machine apart; on volumes that several machines share it
may tell nothing, so the file's age does.
"""

import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from envtune.errors import Exit, Problem, Refused

LOG = logging.getLogger("envtune")

# Seconds without a beat after which another machine's lease is dead.
STALE = 60.0
_BEAT = 10.0


class Lease:
    """Held while a run's folder is worked on. Raises Refused when somebody else holds it."""

    def __init__(self, folder: Path, cancelled: Callable[[], bool] = lambda: False) -> None:
        self.path = folder / "lease"
        self.cancelled = cancelled
        self.stream: TextIO | None = None
        self.beaten = 0.0

    def __enter__(self) -> "Lease":
        self.stream = self.path.open("a+")
        try:
            fcntl.flock(self.stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Refused([self._held()]) from None
        self._wait_for_others()
        self.stream.truncate(0)
        self.stream.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))
        self.stream.flush()
        return self

    def __exit__(self, *exception: object) -> None:
        """Empties the file. Removing it would let two others lock two files of that name."""
        assert self.stream is not None
        self.stream.truncate(0)
        self.stream.close()

    def beat(self) -> None:
        """Shows other machines that the holder lives. Cheap enough to call often."""
        if time.monotonic() > self.beaten + _BEAT:
            self.beaten = time.monotonic()
            os.utime(self.path)

    def _wait_for_others(self) -> None:
        """Until a lease of another machine is stale. Raises Refused when cancelled."""
        if self._alive_elsewhere():
            LOG.info("waiting up to %.0f s for the lease of %s", STALE, self._holder()["host"])
        while self._alive_elsewhere():
            if self.cancelled():
                raise Refused([replace(self._held(), exit=Exit.STOPPED)])
            time.sleep(0.5)

    def _holder(self) -> dict[str, Any]:
        try:
            holder: dict[str, Any] = json.loads(self.path.read_text())
            return holder
        except ValueError:
            return {}

    def _alive_elsewhere(self) -> bool:
        holder = self._holder()
        foreign = bool(holder) and holder.get("host") != socket.gethostname()
        return foreign and time.time() - self.path.stat().st_mtime < STALE

    def _held(self) -> Problem:
        holder = self._holder()
        return Problem(
            "",
            f"{self.path.parent} is being trained by process {holder.get('pid', '?')} on "
            f"{holder.get('host', '?')}; wait for it or end it",
        )

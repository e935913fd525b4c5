"""The right to write a run's folder: a lock that dies with its holder, and a beat.

The lock tells the processes of one machine apart, also across containers. Between machines
it may tell nothing, and some volumes have none at all, so the holder touches the file every
ten seconds and a lease that has not been touched for a minute is dead.
"""

import errno
import fcntl
import json
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from envtune import files
from envtune.channel import alive, process_stamp
from envtune.errors import Exit, Problem, Refused
from envtune.runs.contents import LEASE

LOG = logging.getLogger("envtune")

# Seconds without a beat after which another machine's lease is dead.
STALE = 60.0
_LARGEST = 1 << 16
_BEAT = 10.0
# Between two looks for a lease that is held briefly, seconds.
_SOON = 0.05
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def lock(stream: TextIO, flags: int = fcntl.LOCK_EX) -> None:
    """flock(2), or nothing on a volume that has no locks. Raises BlockingIOError."""
    try:
        fcntl.flock(stream, flags)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise


def holder(folder: Path) -> str:
    """The stamp of the process that holds a folder's lease on any machine; empty for none."""
    stamp, age = last(folder)
    return stamp if age <= STALE else ""


def last(folder: Path) -> tuple[str, float]:
    """Who last held a folder's lease, empty where it was given back, and its silence in s."""
    path = folder / LEASE
    try:
        age = _now(folder) - path.stat().st_mtime
        return str(files.read_json(path, _LARGEST)["stamp"]), age
    except (OSError, ValueError, LookupError, TypeError):
        return "", 0.0  # nobody yet, or half a line that the next look finds whole


def _now(folder: Path) -> float:
    """The time by the volume's own clock, which stamps what every machine writes there."""
    try:
        with tempfile.TemporaryFile(dir=folder) as stream:
            return os.fstat(stream.fileno()).st_mtime
    except OSError:  # full, or read alone
        return time.time()


def _opened(path: Path) -> TextIO:
    """The lease's file, for reading and writing. What has its name and is no file is put aside."""
    if os.path.lexists(path) and not path.is_file():
        LOG.warning("%s is no lease; it is kept as %s", path, files.set_aside(path))
    return path.open("a+")


class Lease:
    """Held while a run's folder is worked on. Raises Refused when somebody else holds it.

    A `brief` one, of a start that writes the configuration, is waited for: of several starts at
    one moment one trains, and the others can say who.
    """

    def __init__(
        self, folder: Path, cancelled: Callable[[], bool] = lambda: False, *, brief: bool = False
    ) -> None:
        self.path = folder / LEASE
        self.cancelled, self.brief = cancelled, brief
        self.stream: TextIO | None = None
        self.done = threading.Event()
        self.beat, self.since = 0.0, time.monotonic()

    def __enter__(self) -> "Lease":
        self.stream = _opened(self.path)
        try:
            self._lock(self.stream)
            self._wait_for_others()
        except Refused:
            self.stream.close()
            raise
        self.mine = {
            "machine": _machine(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "stamp": process_stamp(os.getpid()),
            "since": datetime.now().astimezone().isoformat(timespec="seconds"),
            "brief": self.brief,
        }
        with files.naming(self.path):
            self.stream.truncate(0)
            self.stream.write(json.dumps(self.mine))
            self.stream.flush()
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Empties the file. Removing it would let two others lock two files of that name."""
        assert self.stream is not None
        self.done.set()
        try:
            self.stream.truncate(0)
        except OSError as error:  # others wait until it is stale
            LOG.warning("the lease %s cannot be emptied: %s", self.path, error.strerror)
        self.stream.close()

    def _lock(self, stream: TextIO) -> None:
        """Takes the lock. Raises Refused where somebody holds it who is not about to let go."""
        deadline = time.monotonic() + STALE
        while True:
            try:
                lock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = self._holder()  # nothing, until whoever has the lock has written
                if (holder and not holder.get("brief")) or time.monotonic() > deadline:
                    raise Refused([self._held()]) from None
            else:
                return
            self._refuse_if_cancelled()
            time.sleep(_SOON)

    def _refuse_if_cancelled(self) -> None:
        if self.cancelled():
            raise Refused([replace(self._held(), exit=Exit.STOPPED)])

    def _beat(self) -> None:
        """Shows other machines that the holder lives, and stops it when one took over."""
        while not self.done.wait(_BEAT):
            try:
                os.utime(self.path)
                holder = self._holder()
            except OSError as error:
                LOG.warning("the lease %s cannot be touched: %s", self.path, error.strerror)
                continue
            if holder and holder != self.mine and not self.done.is_set():
                LOG.error("%s is trained by %s now; stopping", self.path.parent, holder["host"])
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _wait_for_others(self) -> None:
        """Until a lease of another machine is stale. Raises Refused when cancelled."""
        if self._alive_elsewhere():
            LOG.info("waiting up to %.0f s for the lease of %s", STALE, self._holder()["host"])
        while self._alive_elsewhere():
            self._refuse_if_cancelled()
            time.sleep(0.5)

    def _holder(self) -> dict[str, Any]:
        try:
            holder = files.read_json(self.path, _LARGEST)
        except (OSError, ValueError):
            return {}
        return holder if isinstance(holder, dict) and isinstance(holder.get("host"), str) else {}

    def _alive_elsewhere(self) -> bool:
        """Whether a holder lives whom the lock did not tell of."""
        holder = self._holder()
        if not holder or self._is_stale():
            return False
        if holder.get("machine") != _machine():
            return True
        return alive(str(holder.get("stamp")))

    def _is_stale(self) -> bool:
        """Whether nobody has touched it for too long: by its time, or while this process looked.
        A time ahead of the volume's clock would be waited for until that comes."""
        beat = self.path.stat().st_mtime
        if beat != self.beat:
            self.beat, self.since = beat, time.monotonic()
        return _now(self.path.parent) - beat > STALE or time.monotonic() - self.since > STALE

    def _held(self) -> Problem:
        holder = self._holder()
        return Problem(
            "",
            f"{self.path.parent} is being trained by process {holder.get('pid', '?')} on "
            f"{holder.get('host', '?')} since {holder.get('since', '?')}; wait for it or end it",
        )


def _machine() -> str:
    """The running kernel: containers of one host share it, and with it its locks."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()

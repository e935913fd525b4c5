"""One try to bring what a run needs of the Hub into its cache, by an ORDER.json.

A process of its own, since a transfer that hangs inside of a library ends with its process
alone. The order names the `repositories` and the `seconds` that are left; `result` gets what
came of it.
"""

import errno
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import modelfiles
from envtune.errors import Exit
from envtune.failures.table import recognise
from envtune.transfer import download, refusals
from envtune.transfer.download import Full, Plan, Torn
from envtune.transfer.hub import Hub, reason
from envtune.transfer.repositories import Repository

# A transfer that moves nothing for this many of huggingface_hub's own timeouts hangs.
_TIMEOUTS = 12
_LOOK = 0.5
# Statuses with which a Hub may say when to come again.
_BUSY = (429, 503)
_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Told:
    """How a try ended. `again`: another one may do, after `after` seconds at least.

    `stalled`: nothing moved any more, and what is left may come without Xet. `moved`: some
    of it has come. `files` and `size` in bytes are what was fetched.
    """

    exit: int = Exit.DONE
    message: str = ""
    again: bool = False
    after: float = 0.0
    stalled: bool = False
    moved: bool = False
    files: int = 0
    size: int = 0


class Later(Exception):
    """The Hub asks to come again after some seconds."""

    def __init__(self, status: int, seconds: float) -> None:
        super().__init__(f"answers with status {status}")
        self.seconds = seconds


class _Watch:
    """What is under way, seen from outside: the disk tells of Xet's work and of a process
    beside this one that fetches the same."""

    def __init__(self) -> None:
        self.what, self.total, self.largest, self.before = "", 0, 0, 0
        self.beats, self.shown = 0, -1
        self.blobs: Path | None = None

    def begin(self, plan: Plan) -> None:
        self.what, self.total, self.blobs = plan.repository.id, plan.to_come(), plan.blobs
        self.largest = max((plan.sizes.get(name, 0) for name in plan.lost()), default=0)
        self.before = self._size()

    def beat(self) -> None:
        self.beats += 1

    def signs(self) -> tuple[Any, ...]:
        """What changes as long as anything moves."""
        stats = sorted((name, s.st_size, s.st_mtime_ns) for name, s in self._stats())
        return self.what, self.beats, stats

    def show(self) -> None:
        """A line with what has come, and a last one where all has."""
        done = self.done()
        if self.blobs is not None and not self.shown == done == self.total:
            print(f"fetch: {self.what}: {done} of {self.total}", flush=True)
            self.shown = done

    def done(self) -> int:
        """The bytes that have come of what is under way."""
        return min(max(self._size() - self.before, 0), self.total)

    def _size(self) -> int:
        return sum(stat.st_size for _, stat in self._stats())

    def _stats(self) -> list[tuple[str, os.stat_result]]:
        found: list[tuple[str, os.stat_result]] = []
        with suppress(FileNotFoundError):  # it is made by the first file
            for item in os.scandir(self.blobs) if self.blobs else ():
                with suppress(FileNotFoundError):  # it has just got its name
                    found.append((item.name, item.stat()))
        return found


def main() -> None:
    order = modelfiles.read_json(Path(sys.argv[1]))
    watch = _Watch()
    try:
        told = replace(_watched(order, watch), moved=watch.done() > 0)
    except BrokenPipeError:
        os._exit(1)  # whoever started this is gone
    files.write_json(Path(order["result"]), asdict(told))
    os._exit(0)  # a thread that hangs is not waited for


def _watched(order: Mapping[str, Any], watch: _Watch) -> Told:
    """Works in a thread, and gives it up when nothing moves or no time is left."""
    from huggingface_hub import constants

    told: list[Told] = []
    patience = _TIMEOUTS * constants.HF_HUB_DOWNLOAD_TIMEOUT
    thread = threading.Thread(target=lambda: told.append(_told(order, watch)), daemon=True)
    thread.start()
    moved = time.monotonic()
    end, signs = moved + order["seconds"], watch.signs()
    while thread.is_alive():
        thread.join(_LOOK)
        watch.show()
        now = time.monotonic()
        if (seen := watch.signs()) != signs:
            signs, moved = seen, now
        if now > end:
            return _again("the transfer is not at its end")
        if now > moved + patience:
            # What is larger the Hub sends by Xet alone.
            stalled = watch.largest <= constants.MAX_HTTP_DOWNLOAD_SIZE
            what = f"the transfer has moved nothing for {patience} s"
            return Told(Exit.NETWORK, what, again=True, stalled=stalled)
    watch.show()
    return told[0]


def _told(order: Mapping[str, Any], watch: _Watch) -> Told:
    """What comes of the order; never raises."""
    hub, plans = Hub(os.environ), list[Plan]()
    repository = Repository("", "model", "")
    try:
        _heed()
        for given in order["repositories"]:
            repository = Repository(**given)
            plans.append(download.plan(hub, repository, code=order["code"]))
        download.make_sure_of_room(plans)
        count, size = 0, 0
        for plan in (plan for plan in plans if plan.lost()):
            repository = plan.repository
            watch.begin(plan)
            size += watch.total
            count += len(download.bring(hub, plan, watch.beat))
    except Exception as error:
        return _judged(error, hub, repository)
    return Told(files=count, size=size)


def _heed() -> None:
    """Hears when the Hub says to come again, as its library does not."""
    from huggingface_hub import get_session

    def look(response: Any) -> None:
        seconds = response.headers.get("Retry-After", "")
        if response.status_code in _BUSY and seconds.isdigit():
            raise Later(response.status_code, float(seconds))

    get_session().event_hooks["response"].append(look)


def _judged(error: Exception, hub: Hub, repository: Repository) -> Told:
    """What an error comes to."""
    import httpx
    from huggingface_hub.errors import LocalEntryNotFoundError

    # The reason why a file is neither in the cache nor to be had is what this is raised from.
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, Later):
        return _again(f"{hub.shown} {error}", error.seconds)
    if isinstance(error, httpx.HTTPError):
        return _of_the_network(error, hub, repository)
    return _of_this_machine(error, repository)


def _of_the_network(error: Exception, hub: Hub, repository: Repository) -> Told:
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        why = f"{hub.shown} cannot be reached ({reason(error)})"
        return Told(Exit.ACCESS, why) if _known(error) == Exit.CONFIG else _again(why)
    if refusals.busy(error):
        return _again(f"{hub.shown} answers with status {error.response.status_code}")
    return Told(Exit.ACCESS, str(refusals.problem(error, hub, repository)))


def _of_this_machine(error: Exception, repository: Repository) -> Told:
    if isinstance(error, Full):
        return _full(str(error))
    said = f"{type(error).__name__}: {error}"
    if _known(error) == Exit.DISK:
        return _full(said)
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        why = f"{error.filename} cannot be written: {error.strerror}"
        return Told(Exit.CONFIG, f"{why}; name another folder in HF_HOME or SFT_CACHE_DIR")
    # Xet's library raises a RuntimeError for everything, the Hub's an OSError for a file that
    # has come in part.
    if isinstance(error, RuntimeError | OSError | Torn):
        return _again(f"{repository.id}: {said}")
    return Told(Exit.BUG, f"{repository.id}: {said}")


def _known(error: Exception) -> Exit | None:
    return failure.exit if (failure := recognise(str(error))) else None


def _again(message: str, after: float = 0.0) -> Told:
    return Told(Exit.NETWORK, " ".join(message.split()), again=True, after=after)


def _full(message: str) -> Told:
    fix = "free space, or name a larger disk in HF_HOME or SFT_CACHE_DIR; the next start goes on"
    return Told(Exit.DISK, f"{' '.join(message.split())}; {fix}")


if __name__ == "__main__":
    main()

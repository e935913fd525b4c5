"""Prepared rows that no start has asked for in a month: what `runs --prune` frees beside runs.

Runs of other folders may use the same caches, so that a list of runs does not tell what is needed;
each start that uses an entry opens its lock, whose time tells.
"""

import fcntl
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from envtune.runs import prepared
from envtune.runs.folders import Run

_MONTH = 30 * 86_400.0
FOLDER = "prepared"


def unused(caches: Path, runs: Sequence[Run], now: float) -> list[Path]:
    """Entries below `caches` that nothing has used for a month and no unfinished run names, and
    what killed preparations have left as long ago. `now`: seconds since 1970."""
    needed = {prepared.told(run.folder) for run in runs if not run.finished}
    found = _entries(caches / FOLDER)
    return [entry for entry in found if entry not in needed and _is_old(entry, now)]


def free(entry: Path, now: float) -> bool:
    """Removes an entry, unless a start has asked for it meanwhile."""
    with _held(entry) as alone:
        if not alone or not _is_old(entry, now):
            return False
        aside = entry.with_name(f".{entry.name.strip('.')}.gone")
        entry.rename(aside)  # nobody finds half of it
        shutil.rmtree(aside)
        return True


def _entries(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from sorted(path for path in folder.iterdir() if path.is_dir())


def _lock(entry: Path) -> Path:
    name = entry.name.removeprefix(".").split(".")[0]
    return entry.with_name(f".{name}.lock")


def _is_old(entry: Path, now: float) -> bool:
    times = [entry.stat().st_mtime]
    with suppress(FileNotFoundError):
        times.append(_lock(entry).stat().st_mtime)
    return now - max(times) > _MONTH


@contextmanager
def _held(entry: Path) -> Iterator[bool]:
    """Whether no start prepares it at this moment; none begins meanwhile."""
    with ExitStack() as stack:
        try:
            stream = stack.enter_context(_lock(entry).open())
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            yield True
        except OSError:
            yield False
        else:
            yield True

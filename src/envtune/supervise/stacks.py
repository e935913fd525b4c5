"""Where each process of a training is, when nothing comes of it any more.

py-spy reads the stacks of a process from outside, also of one that is stopped; where it may not,
the rank's own handler of SIGUSR1 writes them. They lie in the run's folder, one file a rank.
"""

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envtune import channel
from envtune.channel import RANKS, STACKS
from envtune.render import launch
from envtune.supervise import descendants, process

# States of proc_pid_stat(5).
_STOPPED, _WAITS = "T", "D"
_ANSWER = 2.0  # seconds that a rank may take to tell of itself
# Both tell a frame on a line: `name (file:12)`, `File "file", line 12 in name`.
_FRAME = re.compile(r"^\s*(?P<name>\S.*) \((?P<file>.+):(?P<line>\d+)\)$")
_OWN_FRAME = re.compile(r'^\s*File "(?P<file>.+)", line (?P<line>\d+) in (?P<name>.+)$')
_MAIN = re.compile(r"^Thread (\S+)(?: \(\S+\))?")
# Where one is that waits for the other ranks, and one that waits for its loader's processes.
_COLLECTIVE = re.compile(r"/torch/(distributed|autograd)/|/accelerate/utils/operations\.py")
_LOADER = re.compile(r"/torch/utils/data/|/multiprocessing/")
_LIBRARY = re.compile(r"/(site|dist)-packages/|/lib/python3[\d.]*/|^<|/envtune/")


@dataclass(frozen=True)
class Frame:
    """A function that has been called and has not returned."""

    name: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"`{self.name}` ({self.file}:{self.line})"


@dataclass(frozen=True)
class Rank:
    """A process of the training. `frames`, of its main thread or of the loader's process that it
    waits for, begin with the innermost."""

    number: int
    pid: int
    state: str
    frames: tuple[Frame, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it waits for the other ranks, as far as its stack tells."""
        return bool(self.frames) and any(_COLLECTIVE.search(f.file) for f in self.frames[:2])

    def __str__(self) -> str:
        who = f"rank {self.number} (process {self.pid})"
        where = self._where()
        if self.state == _STOPPED:
            return f"{who} is stopped, as by SIGSTOP{where and ', in ' + where}"
        if self.state == _WAITS:
            return f"{who} waits for a device or a volume{where and ', in ' + where}"
        return f"{who} is in {where}" if where else f"{who} tells nothing of where it is"

    def _where(self) -> str:
        if not self.frames:
            return ""
        caller = next((f for f in self.frames[1:] if not _LIBRARY.search(f.file)), None)
        by = f", called by {caller}" if caller and _LIBRARY.search(self.frames[0].file) else ""
        return f"{self.frames[0]}{by}"


def stopped(run_dir: Path) -> bool:
    """Whether a process of the training below this one is stopped (SIGSTOP)."""
    mark = f"{channel.RUN_DIR}={run_dir.resolve()}".encode()
    found = (pid for pid in descendants.pids() if _state(pid) == _STOPPED)
    return any(mark in descendants.variables(pid) for pid in found)


def tell(run_dir: Path) -> str:
    """Writes the stacks of every rank of this machine into the run's folder; who holds the
    training up, on one line."""
    (run_dir / STACKS).mkdir(exist_ok=True)
    ranks = [_looked_at(run_dir, number, pid) for number, pid in local(run_dir)]
    if not ranks:
        return "no rank has made itself known"
    others = len(ranks) - 1
    rest = f"; the stacks of {'it' if not others else f'all {len(ranks)}'}: {run_dir / STACKS}"
    return f"{culprit(ranks)}{rest}"


def culprit(ranks: list[Rank]) -> str:
    """The rank that the others wait for, by its state and then by its stack."""
    late = [rank for rank in ranks if not rank.waits]
    order = {_STOPPED: 0, _WAITS: 1}
    if not late:
        return f"each of {len(ranks)} ranks waits for another, as {ranks[0]}"
    return str(min(late, key=lambda rank: (order.get(rank.state, 2), rank.number)))


def local(run_dir: Path) -> Iterator[tuple[int, int]]:
    """The ranks that are processes of this machine: number and pid."""
    try:
        files = sorted((run_dir / RANKS).iterdir(), key=lambda file: int(file.name))
    except (OSError, ValueError):
        return
    for file in files:
        stamp = file.read_text(errors="replace").partition("\n")[0]
        if re.fullmatch(r"\d+:\d+", stamp) and channel.alive(stamp):
            yield int(file.name), int(stamp.partition(":")[0])


def _looked_at(run_dir: Path, number: int, pid: int) -> Rank:
    state, target = _state(pid), run_dir / STACKS / f"rank{number}.txt"
    before = target.stat().st_size if target.exists() else 0
    with suppress(OSError):  # it may not be installed here: the rank writes itself
        process.briefly(launch.stacks(pid, sys.executable, run_dir), target)
    told = target.read_text(errors="replace")[before:] if target.exists() else ""
    if not any(map(_FRAME.match, told.splitlines())) and state != _STOPPED:
        told = _asked(run_dir / RANKS / str(number), pid)
        with target.open("a") as stream:
            stream.write(told)
    return Rank(number, pid, state, _frames(told, pid))


def _asked(file: Path, pid: int) -> str:
    """What the rank itself writes of its stacks."""
    before = file.stat().st_size
    os.kill(pid, signal.SIGUSR1)
    deadline = time.monotonic() + _ANSWER
    while file.stat().st_size == before and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)  # a thread is written after the other
    return file.read_text(errors="replace")[before:]


def _frames(told: str, pid: int) -> tuple[Frame, ...]:
    """The main thread's; where it waits for a process of its loader, that one's."""
    stacks = list(_stacks(told))
    mine = next((frames for thread, frames in stacks if thread == str(pid)), None)
    mine = mine or (stacks[-1][1] if stacks else ())  # faulthandler names the main thread last
    if any("data/dataloader.py" in frame.file for frame in mine[:6]):
        busy = (f for _, f in stacks if f is not mine and _is_loading(f))
        return next(busy, mine)
    return mine


def _is_loading(frames: tuple[Frame, ...]) -> bool:
    """Whether a stack is of a loader's process that makes a batch, and does not wait for work."""
    return any("_utils/worker.py" in f.file for f in frames) and not _LOADER.search(frames[0].file)


def _stacks(told: str) -> Iterator[tuple[str, tuple[Frame, ...]]]:
    thread, frames = "", list[Frame]()
    for line in [*told.splitlines(), "Thread"]:
        if line.startswith(("Thread", "Current thread")):
            if frames:
                yield thread, tuple(frames)
            found = _MAIN.match(line)
            thread, frames = found[1] if found else "", []
        elif match := _FRAME.match(line) or _OWN_FRAME.match(line):
            frames.append(Frame(match["name"], match["file"], int(match["line"])))


def _state(pid: int) -> str:
    """A letter of proc_pid_stat(5), empty for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return ""

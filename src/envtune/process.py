"""Runs a LaunchPlan and owns every child. The only module that spawns.

torchrun gives its workers sessions of their own and accelerate orphans its child, so a
process group is not enough: the supervisor is a child subreaper, finds descendants in
/proc and ends what is left. SIGTERM and SIGINT are noted here and acted on between two
reads of the child's output.
"""

import ctypes
import logging
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Protocol

from envtune import control
from envtune.launch import LaunchPlan

LOG = logging.getLogger("envtune")

_PR_SET_CHILD_SUBREAPER = 36
_TICK = 0.1
# What is left of the grace for records after the child has ended, seconds.
_RESERVE = 2.0
# How long a child may stay after it has told that it is done, seconds.
_LINGER = 20.0
# How long a killed process may take to go, seconds.
_GIVE_UP = 10.0


class Watcher(Protocol):
    """What a stage wants to know of its child."""

    def line(self, text: str) -> None:
        """A line of its output, without the newline."""

    def clean(self, text: str) -> str:
        """The line as it may be written to the log."""

    def tick(self) -> None:
        """Called ten times a second."""

    def stop(self) -> bool:
        """A stop was asked for: True when the child will end by itself."""

    def done(self) -> bool:
        """Whether the child has told that its work is over."""


@dataclass
class StopSignals:
    """SIGTERM and SIGINT as they come in. `grace` seconds from the first to the end."""

    grace: float = 25.0
    received: list[int] = field(default_factory=list)
    first: float = 0.0

    def install(self) -> "StopSignals":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.received:
            self.first = time.monotonic()
        self.received.append(number)

    @property
    def asked(self) -> bool:
        return bool(self.received)

    @property
    def interrupted(self) -> bool:
        """Whether it was somebody at a keyboard."""
        return self.received[:1] == [signal.SIGINT]

    def deadline(self) -> float:
        """When the child must be gone; each further signal quarters what is left."""
        budget = max(self.grace - _RESERVE, 0.5)
        return self.first + budget / 4.0 ** (len(self.received) - 1)


def adopt_orphans() -> None:
    """Descendants whose parent dies become children of this process (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def run(plan: LaunchPlan, log: Path, watcher: Watcher, stops: StopSignals) -> int:
    """Runs the child to its end and returns its code (negative: the signal's number).

    Nothing that descends from it is left when this returns.
    """
    others = _stamps(descendants())
    child = subprocess.Popen(
        plan.argv,
        env=dict(plan.env),
        cwd=plan.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        with log.open("ab", buffering=0) as stream:
            _attend(child, stream.write, watcher, stops)
    except BaseException:
        _let_it_save(child, watcher, stops.grace)
        raise
    finally:
        end_descendants(child, others)
    return child.wait()


def _let_it_save(child: subprocess.Popen[bytes], watcher: Watcher, grace: float) -> None:
    """Our own failure must not cost the training that runs well."""
    deadline = time.monotonic() + grace
    if watcher.stop():
        while child.poll() is None and time.monotonic() < deadline:
            time.sleep(_TICK)


def _attend(
    child: subprocess.Popen[bytes],
    record: Callable[[bytes], object],
    watcher: Watcher,
    stops: StopSignals,
) -> None:
    """Reads the output and watches the clock until the child is gone."""
    output = _Output(child, record, watcher)
    stopping, lingering = False, 0.0
    while child.poll() is None:
        output.read(_TICK)
        watcher.tick()
        now = time.monotonic()
        if stops.asked and not stopping:
            stopping = True
            if not watcher.stop():
                return
        if stopping and now > stops.deadline():
            return
        lingering = lingering or (now if watcher.done() else 0.0)
        if lingering and now > lingering + _LINGER:
            return
    output.drain()
    watcher.tick()


class _Output:
    """The child's pipe: whole lines to the watcher, everything to the log."""

    def __init__(
        self,
        child: subprocess.Popen[bytes],
        record: Callable[[bytes], object],
        watcher: Watcher,
    ) -> None:
        assert child.stdout is not None
        self.pipe = child.stdout.fileno()
        os.set_blocking(self.pipe, False)
        self.record, self.watcher, self.rest, self.open = record, watcher, b"", True
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.pipe, selectors.EVENT_READ)

    def read(self, wait: float) -> bool:
        """Takes what is there, after at most `wait` seconds. False: nothing was."""
        if not self.open:
            time.sleep(wait)
            return False
        if not self.selector.select(wait):
            return False
        data = os.read(self.pipe, 1 << 16)
        self.open = bool(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.rest = self.rest.rsplit(b"\r", 1)[-1]
        for line in lines:
            self._take(line)
        return self.open

    def drain(self) -> None:
        """What is left in the pipe; a descendant that holds it open is not waited for."""
        while self.read(0):
            pass
        self._take(self.rest)
        self.rest = b""

    def _take(self, line: bytes) -> None:
        """A line; of a bar that was drawn over itself only its last state."""
        text = line.rstrip(b"\r").rsplit(b"\r", 1)[-1].decode(errors="replace").strip()
        if not text:
            return
        self.watcher.line(text)
        try:
            self.record(self.watcher.clean(text).encode() + b"\n")
        except OSError as error:  # a full disk of logs stops no training
            if self.record is not _forget:
                LOG.warning("the engine's output cannot be logged: %s", error.strerror)
            self.record = _forget


def _forget(data: bytes) -> None:
    """Takes the place of a log that cannot be written."""


def descendants() -> list[int]:
    """Every process below this one, whatever session it made for itself."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found, queue = [], [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def _processes() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:  # gone, or hidden from us
                continue
            yield int(entry.name), int(fields[1])


def _stamps(pids: Iterable[int]) -> set[str]:
    return {stamp for pid in pids if (stamp := control.process_stamp(pid))}


def end_descendants(
    child: subprocess.Popen[bytes], others: set[str], patience: float = 1.0
) -> None:
    """SIGTERM, then SIGKILL, until nothing of the child is left; reaps what was adopted.

    `others` are the stamps of descendants from before it, which are not its own: a shell's
    background jobs, or every daemon of the container where this is process 1.
    """
    deadline = time.monotonic() + patience
    child.poll()
    for pid in _left(others):
        _send(pid, signal.SIGTERM)
    while left := _left(others):
        if time.monotonic() > deadline + _GIVE_UP:
            LOG.error("processes %s cannot be ended (waiting for a device or a volume?)", left)
            return
        if time.monotonic() > deadline:
            for pid in left:
                _send(pid, signal.SIGKILL)
        time.sleep(0.02)
        child.poll()
        _reap(pid for pid in left if pid != child.pid)


def _left(others: set[str]) -> list[int]:
    return [pid for pid in descendants() if control.process_stamp(pid) not in others]


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _reap(pids: Iterable[int]) -> None:
    """Collects ended orphans; the child itself is the Popen object's to wait for."""
    for pid in pids:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # not ours yet: its own parent still lives
            continue


def strangers(run_dir: Path) -> list[int]:
    """Processes that a dead supervisor left training in this run folder."""
    mark = f"{control.RUN_DIR}={run_dir.resolve()}".encode()
    found = []
    for pid, _ in _processes():
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in variables and pid != os.getpid() and control.process_stamp(pid):
            found.append(pid)
    return found


def take_over(run_dir: Path, patience: float, cancelled: Callable[[], bool]) -> int:
    """Ends what a dead supervisor left behind. Returns how many processes there were.

    The plugin notices the supervisor's death and commits a checkpoint by itself, so it
    gets `patience` seconds before it is killed.
    """
    left = strangers(run_dir)
    count, deadline = len(left), time.monotonic() + patience
    while left and time.monotonic() < deadline and not cancelled():
        time.sleep(0.1)
        left = strangers(run_dir)
    deadline = time.monotonic() + _GIVE_UP
    while (left := strangers(run_dir)) and time.monotonic() < deadline:
        for pid in left:
            _send(pid, signal.SIGKILL)
        time.sleep(0.05)
    return count

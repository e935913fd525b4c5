"""Finds and ends what descends from this process, and what a dead supervisor left.

torchrun gives its workers sessions of their own and accelerate orphans its child, so a
process group is not enough: this process adopts orphans and looks in /proc.
"""

import ctypes
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Container, Iterable, Iterator
from pathlib import Path

from envtune import channel

LOG = logging.getLogger("envtune")

_PR_SET_CHILD_SUBREAPER = 36
# How long a process may take to go by itself, and a killed one, seconds.
_PATIENCE = 1.0
_GIVE_UP = 10.0


def adopt_orphans() -> None:
    """Descendants whose parent dies become children of this process (prctl(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def pids(others: Container[str] = ()) -> list[int]:
    """Every process below this one, whatever session it made for itself, but those whose stamps
    are among `others`, with all that is below them."""
    children: dict[int, list[int]] = {}
    for pid, parent in _processes():
        children.setdefault(parent, []).append(pid)
    found, queue = [], [os.getpid()]
    while queue:
        below = children.get(queue.pop(), [])
        if others:
            below = [pid for pid in below if channel.process_stamp(pid) not in others]
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


def stamps(of: Iterable[int]) -> set[str]:
    """Names of processes that no later process of the same number shares."""
    return {stamp for pid in of if (stamp := channel.process_stamp(pid))}


def end(child: subprocess.Popen[bytes], others: set[str]) -> None:
    """SIGTERM, then SIGKILL, until nothing of the child is left; reaps what was adopted.

    `others` are the stamps of descendants from before it, which are not its own, nor is what they
    start: a shell's background jobs, every daemon of the container where this is process 1, or a
    trainer that imports meanwhile.
    """
    deadline = time.monotonic() + _PATIENCE
    child.poll()
    for pid in pids(others):
        _send(pid, signal.SIGTERM)
    while left := pids(others):
        if time.monotonic() > deadline + _GIVE_UP:
            LOG.error("processes %s cannot be ended (waiting for a device or a volume?)", left)
            return
        if time.monotonic() > deadline:
            for pid in left:
                _send(pid, signal.SIGKILL)
        time.sleep(0.02)
        child.poll()
        _reap(pid for pid in left if pid != child.pid)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return


def _reap(orphans: Iterable[int]) -> None:
    """Collects ended orphans; the child itself is the Popen object's to wait for."""
    for pid in orphans:
        try:
            os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # not ours yet: its own parent still lives
            continue


def strangers(run_dir: Path) -> list[int]:
    """Processes that a dead supervisor left training in this run folder."""
    mark = f"{channel.RUN_DIR}={run_dir.resolve()}".encode()
    found = []
    for pid, _ in _processes():
        if mark in variables(pid) and pid != os.getpid() and channel.process_stamp(pid):
            found.append(pid)
    return found


def variables(pid: int) -> list[bytes]:
    """The environment that a process was started with; none of one that is hidden from us."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


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

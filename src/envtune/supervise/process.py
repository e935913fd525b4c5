"""Runs a LaunchPlan and owns every child. The only module that spawns.

A stop is noted by `signals` and acted on between two reads of the child's output; what the
child leaves behind is ended by `descendants`.
"""

import collections
import json
import logging
import os
import queue
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from envtune.render import launch
from envtune.render.launch import LaunchPlan
from envtune.supervise import descendants
from envtune.supervise.signals import StopSignals

LOG = logging.getLogger("envtune")

_TICK = 0.1
# Keeps a file of the folder's or the user's from being the standard library's, also in what the
# child starts: `-P` reaches the child alone.
_SAFE_PATH = "PYTHONSAFEPATH"
# The longest line that is waited for, and what of it is kept back once it is longer: more than
# any secret has, bytes.
_LONGEST, _KEPT = 1 << 20, 1 << 16
# How long a child may stay after it has told that it is done, seconds.
_LINGER = 20.0


class Over(Exception):
    """Raised by a watcher: the child will not end by itself, and has nothing to save."""


class Reader(Protocol):
    """Who reads the output of a child."""

    def line(self, text: str) -> None:
        """A line of its output, without the newline."""

    def clean(self, text: str) -> str:
        """The line as it may be written to the log."""


class Watcher(Reader, Protocol):
    """What a stage wants to know of its child."""

    def tick(self) -> None:
        """Called after each look at the output: ten times a second, or more often."""

    def stop(self) -> bool:
        """A stop was asked for: True when the child will end by itself."""

    def done(self) -> bool:
        """Whether the child has told that its work is over."""


def run(
    plan: LaunchPlan,
    log: Path,
    watcher: Watcher,
    stops: StopSignals,
    begun: "Begun | None" = None,
) -> int:
    """Runs the child to its end and returns its code (negative: the signal's number). The child
    that has `begun` goes on, where it is still the one that is planned.

    Nothing that descends from it is left when this returns.
    """
    child = begun.go_on(plan) if begun else None
    others = descendants.stamps(descendants.pids(descendants.stamps([child.pid] if child else ())))
    child = child or _start(plan)
    try:
        with log.open("ab", buffering=0) as stream:
            _attend(child, stream.write, watcher, stops)
    except Over:
        raise
    except BaseException:
        _let_it_save(child, watcher, stops.grace)
        raise
    finally:
        descendants.end(child, others)
    return child.wait()


class Begun:
    """A child that imports and waits to be told to go on; it ends where this process does."""

    def __init__(self, plan: LaunchPlan) -> None:
        self.plan = plan
        self.others = descendants.stamps(descendants.pids())
        self.child = _start(plan, subprocess.PIPE)

    def go_on(self, plan: LaunchPlan) -> subprocess.Popen[bytes] | None:
        """Tells the child what has been decided since. None where another one has to start; this
        one is over then."""
        told, stdin = launch.since(self.plan, plan), self.child.stdin
        if stdin is None or stdin.closed or told is None or self.child.poll() is not None:
            self.end()
            return None
        with suppress(BrokenPipeError), stdin:
            stdin.write(json.dumps(told).encode())
        return self.child

    def end(self) -> None:
        """Nothing that descends from it is left after; it may be over."""
        if self.child.poll() is None:
            descendants.end(self.child, self.others)
            self.child.wait()


@contextmanager
def ahead(plan: LaunchPlan | None) -> Iterator[Begun | None]:
    """A child that has begun while the block runs, where there is one to begin."""
    begun = Begun(plan) if plan else None
    try:
        yield begun
    finally:
        if begun:
            begun.end()


def _start(plan: LaunchPlan, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        plan.argv,
        env={**plan.env, _SAFE_PATH: "1"},
        cwd=plan.cwd,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


class Beside:
    """A child that works beside this process. `tail` holds the last lines of its output."""

    def __init__(self, child: subprocess.Popen[bytes], clean: Callable[[str], str]) -> None:
        self.child, self.clean = child, clean
        self.tail: collections.deque[str] = collections.deque(maxlen=40)

    def ended(self) -> int | None:
        """Its code (negative: the signal's number), or None while it runs."""
        return self.child.poll()

    def ask_to_end(self) -> None:
        """SIGTERM, to the child alone: what it has started is its own to end."""
        self.child.send_signal(signal.SIGTERM)

    def line(self, text: str) -> None:
        self.tail.append(self.clean(text))
        LOG.debug("%s", self.clean(text))


@contextmanager
def beside(plan: LaunchPlan, log: Path, clean: Callable[[str], str]) -> Iterator[Beside]:
    """A child that works while the block does; nothing that descends from it is left after."""
    others = descendants.stamps(descendants.pids())
    child = _start(plan)
    found = Beside(child, clean)
    with log.open("ab", buffering=0) as stream:
        output = _Output(child, stream.write, found)
        pump = threading.Thread(target=_pump, args=(output,), daemon=True)
        pump.start()
        try:
            yield found
        finally:
            descendants.end(child, others)
            pump.join(_LINGER)
    child.wait()


class Partner:
    """A child that is told lines and answers with lines. Nothing of either is written down."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self.child = child
        self.said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            self.said.put(line.decode(errors="replace").rstrip("\n"))
        self.said.put(None)

    def tell(self, line: str) -> None:
        """Raises BrokenPipeError where the child is gone."""
        assert self.child.stdin is not None
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def hear(self, seconds: float) -> str | None:
        """The next line; None once the child has ended. Raises queue.Empty after `seconds`."""
        return self.said.get(timeout=seconds)

    def interrupt(self) -> None:
        self.child.send_signal(signal.SIGINT)


@contextmanager
def talking(plan: LaunchPlan) -> Iterator[Partner]:
    """A child to talk with while the block runs; nothing that descends from it is left after."""
    others = descendants.stamps(descendants.pids())
    child = _start(plan, subprocess.PIPE)
    try:
        yield Partner(child)
    finally:
        descendants.end(child, others)
    child.wait()


def _pump(output: "_Output") -> None:
    """Reads until nobody is left who could write."""
    while output.open:
        output.read(_TICK)
    output.drain()


def quietly(plan: LaunchPlan, log: Path) -> int:
    """Runs a child that has nothing to save; its output goes to `log` alone."""
    return run(plan, log, _Silent(), StopSignals())


def briefly(plan: LaunchPlan, log: Path) -> int:
    """The same for one that is not waited for longer than a child may linger."""
    return run(plan, log, _Brief(), StopSignals())


class _Silent:
    """Wants nothing of its child; a stop ends it at once."""

    def line(self, text: str) -> None:
        """Nothing is looked for."""

    def clean(self, text: str) -> str:
        return text

    def tick(self) -> None:
        """Nothing is looked at."""

    def stop(self) -> bool:
        return False

    def done(self) -> bool:
        return False


class _Brief(_Silent):
    """Could end at any time."""

    def done(self) -> bool:
        return True


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
        watcher: Reader,
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
        if len(self.rest) > _LONGEST:
            self._cut()
        return self.open

    def _cut(self) -> None:
        """A line without an end goes out in parts. What it hides is hidden first, so that no
        secret is cut in two."""
        clean = self.watcher.clean(self.rest.decode(errors="replace"))
        self._take(clean[:-_KEPT].encode())
        self.rest = clean[-_KEPT:].encode()

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

"""events.jsonl: the one account of a run that everything which shows it reads.

One line of JSON an event, appended by the supervisor and the plugin in one write each and never
changed: a start that goes on from a checkpoint says so, and readers drop the steps behind it.
Only the fields of KINDS are written; texts lose secrets, control characters and what is too long.
"""

import json
import logging
import math
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from envtune.redaction import redact

EVENTS = "events.jsonl"

# What each kind tells, beside its time in seconds since 1970. `seconds` of a step are those in
# steps over all starts of the run, `tokens` without padding over all starts; memory in bytes.
_NUMBER = (int, float)
KINDS: dict[str, dict[str, Any]] = {
    "start": {"run": str, "machine": str, "price": _NUMBER},
    "phase": {"phase": str, "max_steps": int},
    "resumed": {"step": int, "checkpoint": str},
    "step": {
        "step": int, "max_steps": int, "tokens": int, "memory": int, "memory_reserved": int,
        **dict.fromkeys(
            ("epoch", "loss", "learning_rate", "grad_norm", "seconds", "tokens_per_second", "mfu",
             "padding"), _NUMBER,
        ),
    },
    "evaluation": {"step": int, "epoch": _NUMBER, "eval_loss": _NUMBER, "seconds": _NUMBER},
    "save": {"step": int, "checkpoint": str, "seconds": _NUMBER, "verify_seconds": _NUMBER},
    "stage": {"stage": str, "state": str, "seconds": _NUMBER},
    "warning": {"text": str},
    "problem": {"text": str},
    "outcome": {"exit": int, "text": str},
}  # fmt: skip
# Nothing can be done with an event that has these and leaves them out.
_NEEDED = {"step", "stage", "phase", "text", "exit"}

# Characters of a text: a loss line of a megabyte is nobody's reading.
_LONGEST = 2000
# Bytes that are read at once: a stream of a week is not held whole.
_CHUNK = 1 << 20


class Stream:
    """Appends to the events of a run. What cannot be written stops nothing: it is told once."""

    def __init__(
        self, folder: Path, secrets: Sequence[str] = (), clock: Callable[[], float] = time.time
    ) -> None:
        self.path, self.secrets, self.clock = folder / EVENTS, tuple(secrets), clock
        self.trouble = ""

    def add(self, kind: str, **fields: Any) -> None:
        """Appends an event. Raises ValueError for a kind or a field that KINDS has not."""
        if unknown := fields.keys() - KINDS.get(kind, {}).keys():
            raise ValueError(f"an event {kind!r} has no field {min(unknown)!r}")
        told = {name: self._plain(value) for name, value in fields.items() if _is_told(value)}
        line = json.dumps({"time": round(self.clock(), 3), "kind": kind, **told})
        try:
            self._append(line.encode() + b"\n")
        except OSError as error:
            self.trouble = self.trouble or f"{self.path} cannot be written: {error.strerror}"

    def _append(self, line: bytes) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        handle = os.open(self.path, flags, 0o666)
        try:
            size = os.lseek(handle, 0, os.SEEK_END)
            if size and os.pread(handle, 1, size - 1) != b"\n":
                line = b"\n" + line  # a kill or a full disk has left half of one
            os.write(handle, line)
        finally:
            os.close(handle)

    def _plain(self, value: Any) -> Any:
        return (
            printable(redact(value, self.secrets))[:_LONGEST] if isinstance(value, str) else value
        )


class Handler(logging.Handler):
    """Makes events of what is logged as a warning or an error."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(logging.WARNING)
        self.stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        kind = "problem" if record.levelno >= logging.ERROR else "warning"
        self.stream.add(kind, text=record.getMessage())


class Follower:
    """Reads what has come since it was last asked. Lines that are none are dropped."""

    def __init__(self, folder: Path) -> None:
        self.path, self.offset, self.rest = folder / EVENTS, 0, b""

    def new(self) -> Iterator[dict[str, Any]]:
        """The events that have come, in order; a line that is not whole yet waits."""
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return  # a neighbour's pipe has no end
            stream.seek(self.offset)
            while data := stream.read(_CHUNK):
                self.offset += len(data)
                *lines, self.rest = (self.rest + data).split(b"\n")
                yield from filter(None, map(_event, lines))


def read(folder: Path) -> list[dict[str, Any]]:
    """Every event of a run, in order; none where it has no stream."""
    return list(Follower(folder).new())


def _event(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and _is_known(event) else None


def _is_known(event: dict[str, Any]) -> bool:
    """Whether an event is one of KINDS, whoever has written it."""
    kind = event.get("kind")
    fields = KINDS.get(kind) if isinstance(kind, str) else None
    if fields is None or not isinstance(event.get("time"), int | float):
        return False
    needed = all(name in event for name in _NEEDED & fields.keys())
    return needed and all(isinstance(event[n], fields[n]) for n in fields.keys() & event.keys())


def _is_told(value: Any) -> bool:
    """JSON has no NaN: a figure that is none is left out."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def printable(text: str) -> str:
    """One line without what a terminal would obey."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))

"""The phases of a start as somebody outside can see them, and what a SIGTERM in each comes to.

docs/stopping.md has the same table for readers; test_stopping compares the two.
"""

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from envtune import channel
from envtune.artifacts import checkpoints, manifests
from tests.harness import Start, metrics

_SIGTERM_BIT = 1 << 14
BEFORE = "stopped before training: nothing to save yet"
SAVED = r"checkpoint-\d+ is committed; the next start goes on from there"
NOTHING = "nothing to save yet; the next start goes on from there"


@dataclass(frozen=True)
class Phase:
    """How it is seen, and the last word that a stop in it has; `code` is the exit code."""

    seen: Callable[[Start], bool]
    word: str
    code: int = 143


def commands(start: Start) -> dict[int, bytes]:
    """The command line of each descendant, by the kernel's lists of children: a look at every
    process of the machine takes longer than some phases."""
    found, queue = {}, [start.process.pid]
    while queue:
        pid = queue.pop()
        with suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
            for task in Path(f"/proc/{pid}/task").iterdir():
                queue += map(int, (task / "children").read_text().split())
    return found


def _runs(start: Start, *words: bytes, without: bytes = b"\0\0") -> bool:
    lines = commands(start).values()
    return any(all(w in line for w in words) and without not in line for line in lines)


def _is_bash(start: Start) -> bool:
    """The door has its trap, and no Python under it."""
    with suppress(OSError):
        status = Path(f"/proc/{start.process.pid}/status").read_text()
        caught = re.search(r"SigCgt:\s+(\w+)", status)
        name = re.search(r"Name:\s+(\w+)", status)
        alone = not any(b"python" in line for line in commands(start).values())
        return bool(
            caught and name and name[1] == "bash" and int(caught[1], 16) & _SIGTERM_BIT and alone
        )
    return False


def outcome(start: Start) -> str:
    """How far this start's training is; what an earlier one has left is not told."""
    if not _runs(start, b"envtune.engine.train"):
        return ""
    found = channel.read_outcome(start.only_run())
    owner = f"{start.process.pid}:"
    return found.state if found and found.owner.startswith(owner) else ""


def step(start: Start) -> int:
    """The last step that is logged, once this start trains."""
    lines = metrics(start.only_run()) if outcome(start) == "training" else []
    return max((int(line["step"]) for line in lines), default=0)


def _saves(start: Start) -> bool:
    folder = start.only_run() / "checkpoints"
    until = time.monotonic() + 0.5
    while outcome(start) == "training" and time.monotonic() < until:
        for _ in range(50):  # one look at the processes for many at the folder
            if any(manifests.is_half(path) for path in checkpoints.named(folder)):
                return True
    return False


def _trains_alone(start: Start) -> bool:
    return _runs(start, b"envtune.engine.train") and outcome(start) in ("", "starting")


PHASES = {
    "the door": Phase(_is_bash, BEFORE),
    "check": Phase(lambda start: _runs(start, b"configure.py", b"--check"), BEFORE),
    "login": Phase(lambda start: _runs(start, b"envtune", b"login"), BEFORE),
    "configure": Phase(lambda start: _runs(start, b"configure.py", without=b"--check"), BEFORE),
    "fetch": Phase(
        lambda start: _runs(start, b"envtune.transfer.fetch"), f"stopped at fetch: {NOTHING}"
    ),
    "preparation": Phase(
        lambda start: _runs(start, b"envtune.engine.data.prepare"),
        rf"stopped at (prepare|before train|the start): ({NOTHING}|{SAVED})",
    ),
    "imports": Phase(_trains_alone, rf"stopped at step 0 of \?: ({NOTHING}|{SAVED})"),
    "loading": Phase(
        lambda start: outcome(start) in ("data", "model"),
        rf"stopped at step \d+ of (\?|\d+): ({NOTHING}|{SAVED})",
    ),
    "step": Phase(lambda start: step(start) >= 2, rf"stopped at step \d+ of \d+: {SAVED}"),
    "save": Phase(_saves, rf"stopped at step \d+ of \d+: {SAVED}"),
    "export": Phase(
        lambda start: _runs(start, b"envtune.engine.export"),
        rf"stopped at (export|before \w+): {SAVED}",
    ),
    "parity": Phase(
        lambda start: "parity: starting vLLM" in start.err,
        rf"(stopped at (parity|before \w+|answers): {SAVED}|parity: stopped while vLLM was starting)",
    ),
    "evaluation": Phase(
        lambda start: _runs(start, b"envtune.engine.evaluate"),
        rf"stopped at (evaluate|answers|before \w+): {SAVED}",
    ),
    "publish": Phase(
        lambda start: _runs(start, b"envtune.transfer.upload"), rf"stopped at publish: {SAVED}"
    ),
    "serve starting": Phase(
        lambda start: "serve: starting vLLM" in start.err, "serve: stopped while vLLM was starting"
    ),
    "serve ready": Phase(
        lambda start: " answers at http" in start.err, "serve: vLLM drained and ended", 0
    ),
}

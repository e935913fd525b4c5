"""Has a module of the engine do what its order says, and tells of its failure.

The order is a JSON file in the run's config folder. What a module makes is whole or not
there, so that one that was killed is asked again and nothing of the run is lost.
"""

import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envtune import files
from envtune.errors import Exit
from envtune.failures.table import recognise
from envtune.machine import hardware
from envtune.render import launch
from envtune.render.launch import LaunchPlan
from envtune.supervise import nodes, process
from envtune.supervise.progress import Counted, Read
from envtune.supervise.stage import LOG, Context, StageRecord, explained, stopped

# What a module says with its exit code; any other is a bug.
_TOLD = (Exit.CONFIG, Exit.DATA, Exit.ACCESS, Exit.MEMORY, Exit.ARTIFACT, Exit.DISK, Exit.NETWORK)
# The kernel's kill, or somebody's; another signal is the module's own crash.
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
# How far a module is, where its lines count something else than what is to be done.
_SHOWN = {"prepare": Read}


def carry_out(
    context: Context,
    stage: str,
    module: str,
    order: Mapping[str, Any],
    python: str = sys.executable,
) -> StageRecord | None:
    """Runs `envtune.engine.<module>` for a stage. None, or the record of its failure.

    Raises Ended where a stop was asked for.
    """
    path = context.run.folder / "config" / f"{module}.json"
    files.write_json(path, {k: str(v) if isinstance(v, Path) else v for k, v in order.items()})
    plan = launch.engine(module, path, python, context.run.folder, context.environ)
    kills = hardware.oom_kills()
    code, tail = attend(context, stage, module, plan, _SHOWN.get(module, Counted)(module))
    if code == 0:
        return None
    if hardware.oom_kills() > kills:
        tail.append("MemoryError: the kernel ended a process for memory")
    told = _failure(context, stage, module, code, tail)
    return {**told, "child_exit": code}


def _failure(context: Context, stage: str, module: str, code: int, tail: list[str]) -> StageRecord:
    said = tail[-1] if tail else f"{module} ended with code {code}"
    if failure := recognise("\n".join(tail)):
        return failed(stage, failure.exit, explained(context, failure, said))
    if -code in _FROM_OUTSIDE:
        said = f"it was killed from outside (signal {-code}); the next start does it again"
        return failed(stage, Exit.HARDWARE, f"{module}: {said}")
    known = Exit(code) if code in _TOLD else Exit.BUG
    return failed(stage, known, f"{module}: {said} (log: {context.run.log(stage)})")


def attend(
    context: Context, stage: str, what: str, plan: LaunchPlan, shown: Counted | None = None
) -> tuple[int, list[str]]:
    """Runs a child of a stage to its end: its exit code and its last lines.

    Raises Ended where a stop was asked for.
    """
    watcher = _Watcher(context, shown or Counted(what))
    log = context.run.log(stage, nodes.rank(context))
    try:
        code = process.run(plan, log, watcher, context.stops)
    finally:
        watcher.shown.close()
    if context.stops.asked:
        raise stopped(context, what)
    return code, watcher.tail


def failed(stage: str, exit_: Exit, message: str) -> StageRecord:
    """The record of a stage that did not come to its end."""
    return {"outcome": "failed", "exit": exit_, "message": f"{stage} failed: {message}"}


@dataclass
class _Watcher:
    """Shows a child's lines and keeps the last. A stop ends it: it is repeated."""

    context: Context
    shown: Counted
    tail: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.tail = [*self.tail[-19:], self.clean(text)]
        self.shown.line(self.clean(text))
        LOG.debug("%s", self.clean(text))

    def clean(self, text: str) -> str:
        return self.context.clean(text)

    def tick(self) -> None:
        """Nothing is shown."""

    def stop(self) -> bool:
        return False

    def done(self) -> bool:
        return False

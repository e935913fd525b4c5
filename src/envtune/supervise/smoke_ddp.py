"""Runs the small training that tries the processes, and judges it."""

import logging
from collections.abc import Callable

from envtune import files
from envtune.errors import Exit
from envtune.failures.table import recognise
from envtune.render.launch import LaunchPlan
from envtune.render.smoke_ddp import Result
from envtune.supervise import process, ranks
from envtune.supervise.signals import StopSignals

LOG = logging.getLogger("envtune")


def run(plan: LaunchPlan, clean: Callable[[str], str], stops: StopSignals) -> tuple[Exit, str]:
    """The exit code and its line."""
    told = plan.cwd / "result.json"
    told.unlink(missing_ok=True)
    watcher = _Watcher(clean)
    code = process.run(plan, plan.cwd / "run.log", watcher, stops)
    if stops.asked:
        stopped = Exit.INTERRUPTED if stops.interrupted else Exit.STOPPED
        return stopped, "stopped in smoke-ddp: nothing to save"
    if told.exists():  # by rank 0, whose view is that of all
        result = Result(**files.read_json(told))
        return result.exit, f"smoke-ddp: {result.problem or 'passed'}: {result}"
    return _judge(code, watcher.tail)


def _judge(code: int, tail: list[str]) -> tuple[Exit, str]:
    """Of a child without rank 0, or that did not come to its end."""
    if code == 0:
        return Exit.DONE, "smoke-ddp: passed"
    if lost := ranks.lost(tail):
        return Exit.HARDWARE, f"smoke-ddp failed: {lost}"
    done = next((line for line in reversed(tail) if line.startswith("[DONE]")), "")
    if code in (Exit.ARTIFACT, Exit.HARDWARE) and done:
        return Exit(code), f"smoke-ddp failed: {done.removeprefix('[DONE] ')}"
    text = "\n".join(tail)
    LOG.error("smoke-ddp: its last lines:\n%s", text)
    if failure := recognise(text):
        said = next((line for line in reversed(tail) if failure.pattern.search(line)), "")
        return failure.exit, f"smoke-ddp failed: {failure.cause}: {said}; {failure.fix}"
    return Exit.BUG, f"smoke-ddp failed: it ended with code {code} and no reason"


class _Watcher:
    """Shows the lines that begin with what they are of, as [STEP]; keeps the last of all."""

    def __init__(self, clean: Callable[[str], str]) -> None:
        self.clean = clean
        self.tail: list[str] = []

    def line(self, text: str) -> None:
        self.tail = [*self.tail[-39:], self.clean(text)]
        if text.startswith("["):
            LOG.info("%s", self.clean(text))

    def tick(self) -> None:
        """Nothing is looked at."""

    def stop(self) -> bool:
        return False

    def done(self) -> bool:
        return False

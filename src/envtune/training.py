"""The stage that trains: resumes, watches, judges and publishes.

Success is what lies on disk: the last step reached, and weights that can be read and
mean something. The child's exit code is recorded and proves nothing.
"""

import os
import sys
from pathlib import Path

from envtune import checkpoints, control, hardware, launch, process
from envtune.control import Outcome
from envtune.errors import Exit, gist, recognise, wrong_value
from envtune.progress import PHASES, Progress
from envtune.resolve.owned import CHECKPOINTS
from envtune.stage import LOG, Context, StageRecord, stopped


def train(context: Context) -> StageRecord:
    """Trains from the newest committed checkpoint, or from the start, and publishes."""
    run, config = context.run, context.config
    left = process.take_over(run.folder, config.setting("SFT_GRACE_SECONDS"))
    if left:
        LOG.warning("train: ended %d processes that a killed start had left", left)
    folder = run.folder / CHECKPOINTS
    for half in checkpoints.drop_uncommitted(folder):
        LOG.warning("train: %s was half written and is removed", half.name)
    resume = checkpoints.newest(folder)
    if resume is not None:
        LOG.info("train: resuming from %s", resume.name)
    control.clear(run.folder)
    watcher = _TrainWatcher(context)
    kills = hardware.oom_kills()
    try:
        code = process.run(_plan(context, resume), run.log("train"), watcher, context.stops)
    finally:
        watcher.progress.close()
    outcome = control.read_outcome(run.folder) or Outcome(state="silent")
    return _judge(context, outcome, code, watcher.tail, hardware.oom_kills() > kills)


def _plan(context: Context, resume: Path | None) -> launch.LaunchPlan:
    run = context.run
    stamp = control.process_stamp(os.getpid())
    place = launch.Place(
        run_dir=run.folder,
        python=sys.executable,
        cores=hardware.probe(context.environ).cores,
        supervisor=stamp or "",
    )
    start = str(resume.relative_to(run.folder)) if resume else context.config.resume_from
    return launch.train(context.config, place, context.environ, start)


class _TrainWatcher:
    """Shows progress, keeps the log's last lines, and asks the plugin to stop."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.progress = Progress(context.run.folder)
        self.tail: list[str] = []
        self.verbose = context.config.setting("SFT_LOG_LEVEL") == "DEBUG"

    def line(self, text: str) -> None:
        self.tail = [*self.tail[-39:], text]
        if self.verbose:
            LOG.debug("axolotl: %s", self.clean(text))

    def clean(self, text: str) -> str:
        return self.context.clean(text)

    def tick(self) -> None:
        self.context.lease.beat()
        self.progress.tick()

    def stop(self) -> bool:
        """A training that has begun saves first; before that there is nothing to save."""
        outcome = control.read_outcome(self.context.run.folder)
        begun = outcome is not None and outcome.state == "training"
        LOG.info("train: stopping%s", ", waiting for a checkpoint" if begun else "")
        if begun:
            control.request_stop(self.context.run.folder)
        return begun

    def done(self) -> bool:
        outcome = control.read_outcome(self.context.run.folder)
        return outcome is not None and outcome.state in ("stopped", "finished", "failed")


def _judge(
    context: Context, outcome: Outcome, code: int, tail: list[str], oom: bool
) -> StageRecord:
    """What the training came to. Its exit code alone proves nothing."""
    told: StageRecord = {"step": outcome.step, "max_steps": outcome.max_steps, "child_exit": code}
    told |= {"world_size": outcome.world_size, "checkpoint": outcome.checkpoint}
    if outcome.state == "finished" and 0 < outcome.max_steps <= outcome.step:
        return told | _publish(context)
    if context.stops.asked:
        end = stopped(context, f"step {outcome.step} of {outcome.max_steps or '?'}")
        return told | {"outcome": "stopped", "exit": end.exit, "message": end.message}
    exit_, message = _failed(outcome, code, tail, oom)
    if exit_ >= Exit.STOPPED:  # nothing that the user could mend by reading one line
        last = "\n".join(context.clean(text) for text in tail[-20:])
        LOG.error("train: the engine's last lines:\n%s", last)
    where = f"at step {outcome.step}" if outcome.step else "before the first step"
    log = context.run.log("train")
    message = context.clean(f"training failed {where}: {message} (log: {log})")
    return told | {"outcome": "failed", "exit": exit_, "message": message}


def _publish(context: Context) -> StageRecord:
    """Checks what Axolotl saved and gives it its final name."""
    adapter = bool(context.config.plain().get("adapter"))
    source = context.run.folder / CHECKPOINTS
    target = context.run.folder / ("adapter" if adapter else "model")
    problems = checkpoints.weight_problems(source, adapter=adapter)
    if problems:
        message = "the trained weights failed their checks: " + "; ".join(problems[:3])
        return {"outcome": "failed", "exit": Exit.ARTIFACT, "message": message}
    names = checkpoints.artifact_files(source, adapter=adapter)
    checkpoints.publish(source, target, names)
    checks = ["steps reached", "weights readable", "no NaN or infinity", "not all zero"]
    return {"outcome": "done", "artifact": target.name, "checks": checks}


def _failed(outcome: Outcome, code: int, tail: list[str], oom: bool) -> tuple[Exit, str]:
    silent_death = outcome.state in PHASES
    if silent_death and oom:
        return Exit.MEMORY, "the kernel killed it: the container's memory was not enough"
    said = gist(outcome.error)
    if failure := recognise("\n".join([outcome.error, *tail])):
        said = said or next((t for t in reversed(tail) if failure.pattern.search(t)), "")
        return failure.exit, f"{failure.cause}: {said}; {failure.fix}"
    if exit_ := wrong_value(outcome.error, outcome.phase):
        return exit_, said
    if silent_death:
        return Exit.HARDWARE, "the training process was killed from outside"
    return Exit.BUG, said or f"the engine ended with code {code} and no reason"

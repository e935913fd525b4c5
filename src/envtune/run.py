"""The stages in order, one signature each, and what a run's end is worth.

A stage takes the Context and returns its record; what it makes lies in the run folder.
A stage that is not asked for says so and costs nothing. A started run that finds a stage
done goes on with the next, so that the same command is a start and a restart.
"""

import hashlib
import logging
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune import (
    checkpoints, configure, control, fingerprint, hardware, launch, process, record, render, runs,
)  # fmt: skip
from envtune.config import RunConfig
from envtune.control import Outcome
from envtune.errors import Exit, recognise
from envtune.process import StopSignals
from envtune.progress import Progress
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs import Lease, Run
from envtune.sources import redact

LOG = logging.getLogger("envtune")

StageRecord = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What every stage gets."""

    run: Run
    config: RunConfig
    environ: Mapping[str, str]
    secrets: tuple[str, ...]
    stops: StopSignals
    lease: Lease

    def clean(self, text: str) -> str:
        """`text` without the secrets."""
        return redact(text, self.secrets)


@dataclass
class Ended(Exception):
    """The run ends here: the exit code and the one line that says why."""

    exit: Exit
    message: str


def prepare_folder(made: configure.Configuration, template: Path = render.AXOLOTL_TEMPLATE) -> Run:
    """Claims the run of this configuration and writes its config folder."""
    contents = fingerprint.contents(made.config)
    yaml = render.render_axolotl(made.config, template)
    run = runs.claim(made.config, made.config.key(contents), Path(made.outputs), Path(made.logs))
    if run.finished:
        return run
    folder = run.folder / "config"
    folder.mkdir(exist_ok=True)
    control.write_text(folder / "axolotl.yaml", yaml)
    control.write_text(folder / "accelerate.yaml", render.render_accelerate(made.config))
    resolved = record.resolved(made.config, contents)
    control.write_json(folder / "resolved.json", resolved)
    record.update(
        run,
        resolved=resolved,
        hashes={"axolotl.yaml": hashlib.sha256(yaml.encode()).hexdigest(), "inputs": contents},
        seed=made.config.plain().get("seed"),
        machine=str(made.facts.machine),
        versions=record.versions(),
    )
    return run


def execute(run: Run, environ: Mapping[str, str], secrets: tuple[str, ...]) -> tuple[Exit, str]:
    """Runs every stage of a run folder. Returns the exit code and its line."""
    config = record.load_resolved(run)
    if run.finished:
        return Exit.DONE, f"already done: {run.folder} (SFT_RERUN=true trains again)"
    process.adopt_orphans()
    stops = StopSignals(config.setting("SFT_GRACE_SECONDS")).install()
    with Lease(run) as lease:
        context = Context(run, config, environ, secrets, stops, lease)
        try:
            for name, stage in STAGES:
                _run_stage(name, stage, context)
        except Ended as end:
            record.update(run, outcome={"exit": int(end.exit), "message": end.message})
            return end.exit, end.message
        return _finish(context)


def _run_stage(
    name: str, stage: Callable[[Context], StageRecord | None], context: Context
) -> None:
    if context.stops.asked and stage is not not_asked:
        raise _stopped(context, f"before {name}")
    done = runs.read_record(context.run.folder).get("stages", {}).get(name, {})
    if done.get("outcome") == "done":
        LOG.info("%s: done before", name)
        return
    started = time.monotonic()
    result = stage(context)
    if result is None:
        LOG.info("%s: not asked for", name)
        return
    result["seconds"] = round(time.monotonic() - started + done.get("seconds", 0.0), 3)
    record.update(context.run, stages={name: result})
    if result["outcome"] != "done":
        raise Ended(Exit(result["exit"]), result["message"])


def not_asked(context: Context) -> StageRecord | None:
    """A stage that nothing turns on yet."""
    return None


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
    outcome = control.read_outcome(run.folder) or Outcome()
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
        end = _stopped(context, f"step {outcome.step} of {outcome.max_steps or '?'}")
        return told | {"outcome": "stopped", "exit": end.exit, "message": end.message}
    exit_, message = _failed(outcome, code, tail, oom)
    LOG.error("train: the engine's last lines:\n%s", "\n".join(context.clean(t) for t in tail[-20:]))
    log = context.run.log("train")
    message = context.clean(f"training failed at step {outcome.step}: {message} (log: {log})")
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


def _stopped(context: Context, where: str) -> Ended:
    newest = checkpoints.newest(context.run.folder / CHECKPOINTS)
    saved = f"{newest.name} is committed" if newest else "nothing to save yet"
    code = Exit.INTERRUPTED if context.stops.interrupted else Exit.STOPPED
    return Ended(code, f"stopped at {where}: {saved}; the next start goes on from there")


def _failed(outcome: Outcome, code: int, tail: list[str], oom: bool) -> tuple[Exit, str]:
    text = "\n".join([outcome.error, *tail])
    if code == -9 and oom:
        return Exit.MEMORY, "the kernel killed it: the container's memory was not enough"
    if failure := recognise(text):
        said = outcome.error or next((t for t in reversed(tail) if failure.pattern.search(t)), "")
        return failure.exit, f"{failure.cause}: {said}; {failure.fix}"
    if code == -9:
        return Exit.HARDWARE, "a process was killed from outside"
    return Exit.BUG, outcome.error or f"the engine ended with code {code} and no reason"


def _finish(context: Context) -> tuple[Exit, str]:
    """Writes the last records; `.complete` comes after all others."""
    run = context.run
    stages = runs.read_record(run.folder)["stages"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    report = record.report(run, stages["train"]["world_size"], peak)
    control.write_json(run.folder / "report.json", report)
    record.update(run, outcome={"exit": 0, "message": "done"})
    record.complete(run, stages["train"]["checks"])
    return Exit.DONE, f"done: {run.folder / stages['train']['artifact']}"


STAGES: tuple[tuple[str, Callable[[Context], StageRecord | None]], ...] = (
    ("prepare", not_asked),
    ("train", train),
    ("export", not_asked),
    ("evaluate", not_asked),
    ("serve", not_asked),
)

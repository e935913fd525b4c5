"""The stage that trains: resumes, starts, judges and publishes.

Success is what lies on disk: the last step reached, and weights that can be read and
mean something. The child's exit code is recorded and proves nothing.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from envtune import channel
from envtune.artifacts import checkpoints, modelfiles, weights
from envtune.channel import FINAL, Outcome
from envtune.errors import Exit, Refused
from envtune.failures.failure import Failure
from envtune.failures.table import gist, recognise, wrong_value
from envtune.machine import hardware, rendezvous
from envtune.render import launch
from envtune.resolve import levers
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs import folders
from envtune.runs.contents import SAMPLE
from envtune.settings.own.training import OFF, RESUME_FROM
from envtune.stages import resuming
from envtune.stages.watcher import TrainWatcher
from envtune.supervise import descendants, nodes, process, ranks, trackers
from envtune.supervise.progress import PHASES
from envtune.supervise.stage import LOG, Context, StageRecord, explained, stopped
from envtune.supervise.watchdog import Hung
from envtune.transfer import hubcache

# What imports take beside what prepares rows, and as much again for others, bytes.
_FOR_TWO = 4 << 30
# The state of a training that ended before its plugin had a word.
SILENT = "silent"
# What the ranks that are left fail with, where one is gone.
_LINK = (Exit.HARDWARE, Exit.NETWORK)


def train(context: Context) -> StageRecord:
    """Trains from the newest committed checkpoint, or from the start, and publishes."""
    try:
        return _train(context)
    finally:
        if context.begun:
            context.begun.end()


def _train(context: Context) -> StageRecord:
    if context.begun is None:  # else nothing was left when it began
        _end_what_is_left(context)
    if context.stops.asked:
        raise stopped(context, "the start")
    if context.config.setting(RESUME_FROM) == OFF:
        resuming.begin_anew(context)
    resuming.look(context)
    if (trained := _trained_before(context)) is not None:
        LOG.info("train: every step was done before; publishing")
        return trained
    resume = _start(context)
    if resume is None:
        resuming.check_given(context)
    else:
        LOG.info("train: resuming from %s", resume.name)
    return _lead(context, resume)


@contextmanager
def ahead(context: Context) -> Iterator[Context]:
    """Has the trainer import while what comes before it is done, where it trains alone and the
    machine has a core and memory for two. It is told to train by its stage, and ends otherwise."""
    folder, machine = context.run.folder, hardware.probe(context.environ)
    trained = folders.read_record(folder).get("stages", {}).get("train", {})
    spare = machine.cores > 1 and machine.memory >= _FOR_TWO
    if trained.get("outcome") == "done" or not spare or descendants.strangers(folder):
        yield context
        return
    place = _place(context, nodes.stamp())
    plan = launch.ahead(launch.train(context.config, place, context.environ, None))
    with process.ahead(plan) as begun:
        yield replace(context, begun=begun)


def _end_what_is_left(context: Context) -> None:
    run, grace = context.run, context.config.setting("SFT_GRACE_SECONDS")
    left = descendants.take_over(run.folder, grace, lambda: context.stops.asked)
    if left:
        LOG.warning("train: ended %d processes that a killed start had left", left)


def _start(context: Context) -> Path | None:
    """The checkpoint to resume from: the newest that is not of the last step.

    One of the last step that could not be published, since FSDP's shards are no adapter,
    would train one step too many; the last steps are trained again.
    """
    newest = checkpoints.newest(context.run.folder / CHECKPOINTS)
    if newest is None or not checkpoints.is_last(newest):
        return newest
    LOG.warning("train: %s is the end and no result; going back", newest.name)
    checkpoints.remove(newest)
    return resuming.look(context)


def _trained_before(context: Context) -> StageRecord | None:
    """The record of a start that was killed between its last step and its record.

    Resuming there would train one step too many: the Trainer looks at the end only after
    a step.
    """
    folder = context.run.folder / CHECKPOINTS
    outcome, last = channel.read_outcome(context.run.folder), checkpoints.newest(folder)
    if outcome is None:
        return None
    if outcome.state == "finished":
        source = folder
    elif last is not None and checkpoints.is_last(last):
        source = last
    else:
        return None
    published = _publish(context, source)  # a sharded checkpoint cannot be, as it is
    return {**_told(outcome), **published} if published["outcome"] == "done" else None


def _lead(context: Context, resume: Path | None) -> StageRecord:
    """Trains as node 0, which may be the only one, and judges what came of it."""
    run = context.run
    channel.clear(run.folder)
    (run.folder / SAMPLE).unlink(missing_ok=True)
    start = str(resume.relative_to(run.folder)) if resume else context.config.resume_from
    watcher = TrainWatcher(context, nodes.stamp())
    if watcher.shared:
        nodes.announce(run.folder, nodes.Launch(watcher.owner, start))
    outcome, code, oom = _run(context, watcher, start)
    if watcher.shared and not context.stops.asked and not ranks.lost(watcher.tail):
        outcome = ranks.cause(outcome, watcher.outcome)
    if resume and not context.stops.asked and (reason := resuming.not_loaded(outcome)):
        return _lead(context, resuming.go_back(context, resume, reason))
    return _judge(context, outcome, code, watcher.tail, oom)


def join(context: Context, led: nodes.Launch) -> None:
    """Trains as another node than node 0, and tells it of a rank that died in silence."""
    watcher = TrainWatcher(context, led.owner)
    outcome, code, oom = _run(context, watcher, led.resume)
    lost = ranks.lost(watcher.tail)
    # What other ranks have failed with since then is that this one is gone.
    told = outcome.state in FINAL and not (lost and outcome.state == "failed")
    if told or context.stops.asked or nodes.lost(context.run.folder, led):
        return
    name = "MemoryError" if oom else ranks.LOST
    phase = outcome.phase if outcome.state == "failed" else outcome.state
    error = (
        f"{name}: {lost or f'the launcher ended with code {code}'} on node {nodes.rank(context)}"
    )
    failed = replace(outcome, owner=led.owner, state="failed", phase=phase, error=error)
    failed.write(context.run.folder)


def _run(context: Context, watcher: TrainWatcher, start: str | None) -> tuple[Outcome, int, bool]:
    """The outcome, the child's exit code, and whether the kernel killed for memory."""
    kills, run_dir = hardware.oom_kills(), context.run.folder
    place = _place(context, watcher.owner)
    if watcher.shared:
        nodes.wait_for_host(context, place.where)
    tracked = trackers.reached(context.config, context.environ, context.run.folder.resolve())
    for line in tracked.warnings:
        LOG.warning("train: %s", context.clean(line))
    environ = {**context.environ, **tracked.environ}
    if not nodes.rank(context):
        environ |= trackers.resumed(context.config, environ, context.run.folder)
    plan = launch.train(context.config, place, environ, start)
    log = context.run.log("train", nodes.rank(context))
    try:
        code = process.run(plan, log, watcher, context.stops, context.begun)
    except Hung as hung:
        return _hung(watcher, hung), -signal.SIGKILL, False
    finally:
        watcher.progress.close()
        channel.forget_ranks(run_dir)
    outcome = watcher.outcome() or Outcome(state=SILENT)
    return outcome, code, hardware.oom_kills() > kills


def _hung(watcher: TrainWatcher, hung: Hung) -> Outcome:
    """What a training comes to that hangs: nobody in it can tell."""
    last = watcher.seen or Outcome(owner=watcher.owner)
    error = f"{Hung.__module__}.{Hung.__qualname__}: {hung}"
    return replace(last, state="failed", phase=last.state, error=error)


def _place(context: Context, owner: str) -> launch.Place:
    where, problems = rendezvous.read(
        context.environ, rendezvous.named(context.config.setting(rendezvous.FLAGS))
    )
    if problems:
        raise Refused(problems)
    return launch.Place(
        run_dir=context.run.folder.resolve(),
        python=sys.executable,
        cores=hardware.cores(),
        supervisor=nodes.stamp(),
        owner=owner,
        gpus=len(hardware.probe(context.environ).gpus),
        where=where,
        home=home(context),
        cuda=hardware.cuda_home(Path(sys.prefix)),
    )


def home(context: Context) -> Path | None:
    """A home for a user that has none that can be written, as OpenShift's do; else None."""
    if hardware.home_is_usable(context.environ):
        return None
    home = context.run.folder.parent / ".home"
    home.mkdir(exist_ok=True)
    LOG.info("train: HOME cannot be written; using %s", home)
    return home


def _told(outcome: Outcome) -> StageRecord:
    """What the record keeps of an outcome."""
    return {
        "step": outcome.step,
        "max_steps": outcome.max_steps,
        "ended_early": outcome.early,
        "world_size": outcome.world_size,
        "checkpoint": outcome.checkpoint,
        "tokens": outcome.tokens,
        "training_seconds": outcome.seconds,
        "padding": outcome.padding,
        "mfu": outcome.mfu,
        "peak_allocated_bytes": outcome.peak_allocated or None,
        "peak_reserved_bytes": outcome.peak_reserved or None,
        "saves": outcome.saves,
        "save_seconds": outcome.save_seconds,
        "verify_seconds": outcome.verify_seconds,
    }


def _judge(
    context: Context, outcome: Outcome, code: int, tail: list[str], oom: bool
) -> StageRecord:
    """What the training came to. Its exit code alone proves nothing."""
    steps, tokens = checkpoints.brought(context.config.resume_from)
    brought = {"brought_steps": steps, "brought_tokens": tokens}
    told: StageRecord = {**_told(outcome), "child_exit": code, **brought}
    if outcome.state == "finished" and told["brought_steps"] >= outcome.step:
        LOG.warning(
            "train: nothing was left to train: %s is of step %d of %d; raise AXOLOTL_NUM_EPOCHS or "
            "AXOLOTL_MAX_STEPS to go on from it",
            context.config.resume_from, told["brought_steps"], outcome.max_steps,
        )  # fmt: skip
    reached = outcome.early or 0 < outcome.max_steps == outcome.step
    resuming.tell_damaged_best(context, outcome)
    if outcome.state == "finished" and reached:
        return told | _publish(context, context.run.folder / CHECKPOINTS)
    if context.stops.asked or outcome.state == "stopped":
        end = stopped(context, f"step {outcome.step} of {outcome.max_steps or '?'}")
        return told | {"outcome": "stopped", "exit": end.exit, "message": end.message}
    exit_, message = _failed(context, outcome, code, tail, oom)
    if exit_ >= Exit.STOPPED:  # what no line of ours can mend
        last = "\n".join(context.clean(text) for text in tail[-20:])
        LOG.error("train: the engine's last lines:\n%s", last)
    where = f"at step {outcome.step}" if outcome.step else "before the first step"
    log = context.run.log("train")
    message = context.clean(f"training failed {where}: {message} (log: {log})")
    return told | {"outcome": "failed", "exit": exit_, "message": message}


def _publish(context: Context, source: Path) -> StageRecord:
    """Checks the weights in `source` and gives them their final name."""
    adapter = bool(context.config.plain().get("adapter"))
    target = context.run.folder / ("adapter" if adapter else "model")
    problems = weights.problems(source, adapter=adapter)
    if problems:
        message = "the trained weights failed their checks: " + "; ".join(problems[:3])
        return {"outcome": "failed", "exit": Exit.ARTIFACT, "message": message}
    names = checkpoints.artifact_files(source, adapter=adapter)
    checkpoints.publish(source, target, names)
    checks = ["steps reached", "weights readable", "no NaN or infinity", "not all zero"]
    return {"outcome": "done", "artifact": target.name, "checks": checks}


def _failed(
    context: Context, outcome: Outcome, code: int, tail: list[str], oom: bool
) -> tuple[Exit, str]:
    lost = ranks.lost(tail)
    silent_death = outcome.state in PHASES or (outcome.state == SILENT and code == -signal.SIGKILL)
    if (silent_death or lost) and oom:
        who = f"{lost} by the kernel" if lost else "the kernel killed it"
        return Exit.MEMORY, f"{who}: the container's memory was not enough"
    said, failure = gist(outcome.error), recognise(outcome.error)
    if outcome.error.startswith(ranks.LOST):
        lost = said.removeprefix(f"{ranks.LOST}: ")
    # That another rank is gone is all that those know which were left.
    wrong = wrong_value(outcome.error, outcome.phase)
    if lost and not wrong and (failure is None or failure.exit in _LINK):
        return Exit.HARDWARE, f"{lost}; the next start resumes"
    # The exception speaks first; a warning in the log's end may be about anything.
    if failure:
        return failure.exit, explained(context, _with_levers(context, failure), said)
    if wrong:
        return wrong, said
    if said:
        return Exit.BUG, said
    if failure := recognise("\n".join(tail)):
        shown = next((t for t in reversed(tail) if failure.pattern.search(t)), "")
        return failure.exit, explained(context, _with_levers(context, failure), shown)
    if silent_death:
        return Exit.HARDWARE, "the training process was killed from outside"
    return Exit.BUG, f"the engine ended with code {code} and no reason"


def _with_levers(context: Context, failure: Failure) -> Failure:
    """Where a GPU's memory was not enough, the fix is by this training's own figures."""
    if failure.exit != Exit.MEMORY or context.config.device == "cpu":
        return failure
    base = hubcache.base_folder(context.config, context.environ)
    try:
        config = modelfiles.read_json(base / "config.json") if base else {}
    except (OSError, ValueError):
        config = {}
    found = levers.best(context.config.plain(), config)
    return replace(failure, fix=f"set {', or '.join(map(str, found))}") if found else failure

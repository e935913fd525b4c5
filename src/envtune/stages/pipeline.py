"""The stages in order, one signature each, and what a run's end is worth.

A stage takes the Context and returns its record; what it makes lies in the run folder.
A stage that is not asked for says so and costs nothing. A started run that finds a stage
done goes on with the next, so that the same command is a start and a restart.
"""

import hashlib
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from envtune import events, files, venvs
from envtune.errors import Exit, Problem, Refused, of_file
from envtune.machine import rendezvous
from envtune.render import yaml_files
from envtune.resolve.config import Configuration
from envtune.resolve.plan import told
from envtune.runs import contents, fingerprint, folders, record
from envtune.runs.folders import Run
from envtune.runs.lease import Lease
from envtune.serve import models, server
from envtune.settings.own.place import PRICE
from envtune.settings.typed import Setting
from envtune.stages import (
    evaluating,
    exporting,
    fetching,
    mending,
    parity,
    preparing,
    publishing,
    quantising,
    smoke_ddp,
    training,
)
from envtune.supervise import descendants, nodes, restarts, templates
from envtune.supervise.budget import Budget
from envtune.supervise.signals import StopSignals
from envtune.supervise.stage import LOG, Context, Ended, StageRecord, stopped


def prepare_folder(made: Configuration) -> Run:
    """Claims the run of this configuration and writes its config folder.

    On another node than node 0 waits for node 0 to do so.
    """
    if made.config.setting("SFT_PRETEND_GPU"):
        raise Refused([Problem("SFT_PRETEND_GPU", "is for checks alone; unset it to train")])
    inputs = fingerprint.contents(made.config)
    yaml = templates.render_axolotl(made.config)
    place = (made.config.key(inputs), Path(made.facts.outputs), Path(made.facts.logs))
    if made.facts.where.rank:
        return nodes.join(made.config, *place, made.facts.where)
    run = folders.claim(made.config, *place)
    if run.finished:
        return run
    try:
        with Lease(run.folder, brief=True):
            if not run.finished:
                mending.mend(run)
                _write_config(run, made, inputs, yaml)
    except Refused:
        # Somebody trains it; `execute` waits for the lease or says who.
        LOG.debug("%s is held", run.folder)
    return run


def _write_config(run: Run, made: Configuration, inputs: dict[str, str], yaml: str) -> None:
    folder = run.folder / contents.CONFIG
    folder.mkdir(exist_ok=True)
    files.write_text(folder / "axolotl.yaml", yaml)
    files.write_text(folder / "accelerate.yaml", yaml_files.render_accelerate(made.config))
    if name := yaml_files.deepspeed_file(made.config):
        files.write_text(folder / name, (yaml_files.TEMPLATES / "accelerate" / name).read_text())
    if made.config.plan is not None:
        planned = told.figures(made.config.plan, made.config.setting(PRICE))
        files.write_json(run.folder / contents.PLAN, planned)
    resolved = record.resolved(made.config, inputs)
    files.write_json(folder / "resolved.json", resolved)
    record.update(
        run,
        resolved=resolved,
        hashes={"axolotl.yaml": hashlib.sha256(yaml.encode()).hexdigest(), "inputs": inputs},
        seed=made.config.plain().get("seed"),
        machine=str(made.facts.machine),
        versions=record.versions(),
        logs=str(run.logs),
    )


@dataclass(frozen=True)
class Start:
    """What a command starts the stages of a run with.

    `own` are the settings of this start. What the run was made with stands behind them, so
    that a trained run can be served or measured in another way. `starts` counts them where a
    platform makes this one, and would make it again.
    """

    run: Run
    environ: Mapping[str, str]
    secrets: tuple[str, ...]
    own: Mapping[str, Setting]
    stops: StopSignals = field(default_factory=lambda: StopSignals().install())
    starts: restarts.Starts | None = None

    def context(self) -> Context:
        """What every stage gets; the run has its configuration by now."""
        config = record.load_resolved(self.run, self.own)
        self.stops.grace = config.setting("SFT_GRACE_SECONDS")
        return Context(self.run, config, self.environ, self.secrets, self.stops)


def execute(start: Start) -> tuple[Exit, str]:
    """Runs every stage of a run folder. Returns the exit code and its line."""
    run, stops = start.run, start.stops
    already = f"already done: {run.folder} (SFT_RERUN=true trains again)"
    if run.finished and record.is_reported(run):
        return Exit.DONE, already
    descendants.adopt_orphans()
    if nodes.rank(context := start.context()):
        return _given_up(start, context) or _follow(context) or (Exit.DONE, already)
    with Lease(run.folder, lambda: stops.asked):
        mending.mend(run)
        if run.finished:  # while this start waited
            return Exit.DONE, already
        context = start.context()
        return _given_up(start, context) or _lead(context)


def alone(start: Start, name: str) -> tuple[Exit, str]:
    """Runs one stage of a trained run again, whether it was done before or not."""
    run, stops = start.run, start.stops
    if folders.read_record(run.folder).get("stages", {}).get("train", {}).get("outcome") != "done":
        text = "is not trained to its end; start it again with the settings that it was made with"
        raise Refused([Problem(run.name, text)])
    descendants.adopt_orphans()
    with Lease(run.folder, lambda: stops.asked):
        mending.mend(run)
        (run.folder / contents.COMPLETE).unlink(missing_ok=True)  # it names the record's digest
        context = start.context()
        try:
            with _told(context):
                asked = _run_stage(name, dict(STAGES)[name], context, again=True)
        except Ended as end:
            _ended(context, end.exit, end.message)
            return end.exit, end.message
        stages = folders.read_record(run.folder)["stages"].values()
        if (run.folder / contents.REPORT).exists() and all(s["outcome"] == "done" for s in stages):
            _complete(run)  # it was, before a lone stage changed its record
    if not asked:
        settings = venvs.beside("docs/settings.md")
        return Exit.CONFIG, f"{name}: nothing was done: no setting asks for it ({settings})"
    return Exit.DONE, f"{name}: done: {run.folder}"


def serve(start: Start) -> tuple[Exit, str]:
    """Serves what a run has made until a stop; a chat of it needs no lease."""
    descendants.adopt_orphans()
    context = start.context()
    try:
        with Budget(context):
            return server.serve(context, models.find(context))
    except Ended as end:
        return end.exit, end.message


@contextmanager
def _told(context: Context) -> Iterator[None]:
    """Begins a start in the stream of events, which gets what is logged as wrong meanwhile."""
    stream, record_ = _events(context), folders.read_record(context.run.folder)
    price = context.config.setting(PRICE)
    stream.add("start", run=context.run.name, machine=record_.get("machine"), price=price)
    handler = events.Handler(stream)
    LOG.addHandler(handler)
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        if stream.trouble:
            LOG.warning("%s", stream.trouble)


def _events(context: Context) -> events.Stream:
    return events.Stream(context.run.folder, context.secrets)


def _lead(context: Context) -> tuple[Exit, str]:
    with _told(context):
        return _in_order(context)


def _in_order(context: Context) -> tuple[Exit, str]:
    stream = _events(context)
    try:
        with Budget(context), training.ahead(context) as begun:
            smoke_ddp.test(context)
            stream.add("stage", stage="fetch", state="begun")
            fetching.fetch(context)
            stream.add("stage", stage="fetch", state="done")
            for name, stage in STAGES:
                _run_stage(name, stage, begun, again=_is_gone(name, context))
    except Ended as end:
        _ended(context, end.exit, end.message)
        return end.exit, end.message
    except Refused as refused:
        _ended(context, refused.exit, refused.line)
        raise
    except OSError as error:
        error.filename = error.filename or str(context.run.folder)  # of an open file none is told
        _ended(context, *of_file(error))
        raise
    except Exception as error:
        _ended(context, Exit.BUG, f"{type(error).__name__}: {context.clean(str(error))}")
        raise
    return _finish(context)


def _ended(context: Context, exit_: Exit, message: str) -> None:
    """Records how a start has ended, and tells the other nodes."""
    _events(context).add("outcome", exit=int(exit_), text=message)
    record.update(context.run, outcome={"exit": int(exit_), "message": message})
    _announce(context, exit_, message)


def _announce(context: Context, exit_: Exit, message: str) -> None:
    if context.config.parallel.nodes > 1 and not nodes.rank(context):
        launch = nodes.Launch(nodes.stamp(), None, int(exit_), message)
        nodes.announce(context.run.folder, launch)


def _given_up(start: Start, context: Context) -> tuple[Exit, str] | None:
    """The end of the last start, where a restart would come to the same."""
    last = start.starts.begin() if start.starts else None
    if last is None:
        return None
    exit_, message = Exit(last["exit"]), last["message"]
    _announce(context, exit_, message)
    LOG.warning(
        "%s has failed and is not tried again by a restart; other settings do, and so does "
        "%s in a shell", context.run.name, venvs.door(),
    )  # fmt: skip
    return exit_, message


def _follow(context: Context) -> tuple[Exit, str] | None:
    """Trains along with node 0 and ends as it does; None where it is done already."""
    where, _ = rendezvous.read(context.environ)
    try:
        smoke_ddp.test(context)
        fetching.fetch(context)
        launch = nodes.wait_for_launch(context, where)
        if launch is None:
            return None
        training.join(context, launch)
    except Ended as end:
        return end.exit, end.message
    return nodes.wait_for_end(context, launch)


def _run_stage(
    name: str,
    stage: Callable[[Context], StageRecord | None],
    context: Context,
    *,
    again: bool = False,
) -> bool:
    """Whether the stage was asked for. Raises Ended where it did not come to its end."""
    if context.stops.asked:
        raise stopped(context, f"before {name}")
    done = folders.read_record(context.run.folder).get("stages", {}).get(name, {})
    if done.get("outcome") == "done" and not again:
        LOG.info("%s: done before", name)
        return True
    started, stream = time.monotonic(), _events(context)
    stream.add("stage", stage=name, state="begun")
    result = stage(context)
    if result is None:
        stream.add("stage", stage=name, state="not asked for")
        LOG.info("%s: not asked for", name)
        return False
    result["seconds"] = round(time.monotonic() - started + done.get("seconds", 0.0), 3)
    record.update(context.run, stages={name: result})
    stream.add("stage", stage=name, state=result["outcome"], seconds=result["seconds"])
    if result["outcome"] != "done":
        raise Ended(Exit(result["exit"]), result["message"])
    return True


def _is_gone(name: str, context: Context) -> bool:
    """Whether what a stage has made may be gone: prepared rows lie in a cache until they are
    trained on."""
    trained = folders.read_record(context.run.folder).get("stages", {}).get("train", {})
    return name == "prepare" and trained.get("outcome") != "done"


def _finish(context: Context) -> tuple[Exit, str]:
    """Writes the last records; `.complete` comes after all others."""
    run = context.run
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    report = record.report(run, peak)
    files.write_json(run.folder / contents.REPORT, report)
    stages = _complete(run)
    message = f"done: {run.folder / stages['train']['artifact']}"
    _events(context).add("outcome", exit=int(Exit.DONE), text=message)
    _announce(context, Exit.DONE, message)
    return Exit.DONE, message


def _complete(run: Run) -> dict[str, StageRecord]:
    """Marks the run as done with the checks that its stages passed; gives their records."""
    record.update(run, outcome={"exit": 0, "message": "done"})
    stages: dict[str, StageRecord] = folders.read_record(run.folder)["stages"]
    record.complete(run, [c for stage in stages.values() for c in stage.get("checks", ())])
    return stages


STAGES: tuple[tuple[str, Callable[[Context], StageRecord | None]], ...] = (
    ("prepare", preparing.prepare),
    ("train", training.train),
    ("export", exporting.export),
    ("quantise", quantising.quantise),
    ("parity", parity.prove),
    ("evaluate", evaluating.evaluate),
    ("publish", publishing.publish),
)

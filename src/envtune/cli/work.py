"""The verbs that work: they make, train, serve, log in or end something."""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from envtune import files, venvs
from envtune.cli import configuration, output, plan, target
from envtune.cli.console import show, warn, width
from envtune.cli.termination import BEFORE_TRAINING, Result, ended_with
from envtune.errors import Exit, Problem, Refused
from envtune.settings import sources
from envtune.settings.own import OWN
from envtune.settings.own.place import STATUS_HOST, STATUS_PORT, STATUS_TOKEN
from envtune.settings.own.training import WATCHDOG, WATCHDOG_SECONDS
from envtune.supervise.finish import End
from envtune.watch import notice

if TYPE_CHECKING:
    from envtune.stages import pipeline

LOG = logging.getLogger("envtune")


def configure(args: argparse.Namespace) -> Result:
    """make Axolotl's YAML: into the run's folder, or to --output"""
    from envtune.stages import pipeline
    from envtune.supervise import templates

    named = [f"SFT_TEMPLATE={args.template}"] if args.template else []
    made = configuration.configure([*args.overrides, *named], fetch=not args.check)
    text = templates.render_axolotl(made.config)
    if args.check:
        return Exit.DONE, "the configuration is valid"
    warn(made)
    LOG.info("configuration on %s:", made.facts.machine)
    table = output.configuration(made.config, width(sys.stderr))
    print(table, file=sys.stderr, flush=True)
    for line in plan.summary(made):
        LOG.info("%s", line)
    if args.output:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(Path(args.output), text)
        return Exit.DONE, f"wrote {args.output}"
    folder = pipeline.prepare_folder(made).folder
    print(folder)
    return Exit.DONE, f"wrote {folder}/config/axolotl.yaml"


def run(args: argparse.Namespace) -> Result:
    """train: the run in a folder made by configure, or a new one from the environment"""
    from envtune.stages import pipeline
    from envtune.supervise import nodes

    need_engines("run")
    start = _claimed(args)
    args.told = start.run.finished  # by the start that has finished it
    with _seen(start):
        try:
            exit_, message = pipeline.execute(start)
        finally:
            _write_page(start)
        if exit_ == Exit.DONE:
            _summarise(start.run.folder, message)
            context = start.context()
            if context.config.setting("SFT_SERVE") and not nodes.rank(context):
                _tell_of_training(args, message)
                return pipeline.serve(start)
    return exit_, message


@contextmanager
def _seen(start: "pipeline.Start") -> Iterator[None]:
    """Whoever looks on sees a run while it goes."""
    from envtune.supervise import nodes
    from envtune.watch import server

    if nodes.rank(context := start.context()):
        yield
        return
    setting = context.config.setting
    # Twice what the watchdog waits, which ends a training and says more.
    silence, paces = 2 * setting(WATCHDOG_SECONDS), 2 * (setting(WATCHDOG) or OWN[WATCHDOG].default)
    answers = server.Answers(start.run.folder, start.secrets, silence, paces)
    token = start.environ.get(STATUS_TOKEN, "").strip()
    with server.LivePage(answers, setting(STATUS_HOST), setting(STATUS_PORT), token):
        yield


def _write_page(start: "pipeline.Start") -> None:
    from envtune.supervise import nodes
    from envtune.watch import report

    if not nodes.rank(start.context()):
        report.renew(start.run.folder, start.secrets)


def _tell_of_training(args: argparse.Namespace, message: str) -> None:
    """A server may go on for months: the end of the training is told before it."""
    if not args.told:
        notice.tell(End(Exit.DONE, message, args.folder), args.overrides)
        args.told = True


def _claimed(args: argparse.Namespace) -> "pipeline.Start":
    """The run that is trained: the one in --folder, or that of the environment."""
    from envtune.machine import hardware
    from envtune.runs import folders
    from envtune.stages import pipeline
    from envtune.supervise import restarts

    inputs = sources.read(args.overrides)
    if args.folder and args.overrides:
        what = "a run folder has its configuration; leave the NAME=VALUE out, or --folder"
        raise Refused([Problem(args.overrides[0].split("=")[0], what)])
    if args.folder:
        claimed, own = folders.open_run(args.folder.resolve()), target.settings_of(inputs).own
    else:
        made = configuration.configure(args.overrides, fetch=True)
        warn(made)
        claimed, own = pipeline.prepare_folder(made), made.settings.own
        args.folder = claimed.folder  # where its end is counted
    starts = restarts.Starts(claimed.folder, inputs) if hardware.started_by_init() else None
    return pipeline.Start(claimed, inputs.passed_on, inputs.secrets, own, starts=starts)


def _summarise(folder: Path, message: str) -> None:
    """Shows the end of a run on one screen."""
    from envtune.watch import ending, report, story

    told = dict(report.figures(story.of(folder), files.read_json(folder / "report.json")))
    show(ending.text(folder, message.partition(":")[0], told))


def serve(args: argparse.Namespace) -> Result:
    """serve a trained run with vLLM until a stop: RUN, or the newest"""
    from envtune.stages import pipeline

    return pipeline.serve(target.start(args))


def smoke_test(args: argparse.Namespace) -> Result:
    """ask a running server of a trained run: models, chat, stream, end of text, key"""
    from envtune.serve import smoke_test

    return smoke_test.test(target.start(args).context())


def lone(stage: str, meaning: str) -> Callable[[argparse.Namespace], Result]:
    """The verb of a stage that may be run again on a trained run."""

    def verb(args: argparse.Namespace) -> Result:
        from envtune.stages import pipeline

        if stage != "publish":
            need_engines(stage)
        return pipeline.alone(target.start(args), stage)

    verb.__doc__ = f"{meaning}: RUN, or the newest"
    return verb


def need_engines(verb: str) -> None:
    """Raises Refused where the wheel alone is installed, which brings no engine."""
    if not venvs.engines():
        what = (
            "needs Axolotl, which is not installed here: the wheel checks, explains and "
            "configures; train in the image, or in a checkout after `make setup`"
        )
        raise Refused([Problem(f"envtune {verb}", what)])


def finish(args: argparse.Namespace) -> Result:
    """do what SFT_ON_FAIL or SFT_ON_FINISH asks for after an exit with CODE, and exit with it"""
    exit_ = ended_with(args.code)
    return exit_, BEFORE_TRAINING.get(exit_, "")


def login(args: argparse.Namespace) -> Result:
    """try the keys of Hugging Face and W&B; never fails"""
    from envtune.transfer import hub

    environ = sources.read().environ
    for service in (hub.hugging_face, hub.weights_and_biases):
        LOG.info("%s", service(environ))
    return Exit.DONE, ""


def copy(args: argparse.Namespace) -> Result:
    """copy what a store holds below SOURCE into FOLDER: data or a model for a volume"""
    from envtune.transfer import incoming

    return Exit.DONE, incoming.copy(args.source, args.folder, sources.read().environ)

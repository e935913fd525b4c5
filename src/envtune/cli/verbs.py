"""The verbs of the command, and the table of them.

Each returns an exit code and a line for the termination message. Heavy imports happen inside
the verbs that need them, so that a wrong variable is told at once.
"""

import argparse
import json
import logging
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from envtune import files, redaction
from envtune.cli import configuration, output
from envtune.errors import Exit, Problem, Refused
from envtune.resolve.config import Configuration
from envtune.settings import given, paths, sources, typed

if TYPE_CHECKING:
    from envtune.stages import pipeline as stages

LOG = logging.getLogger("envtune")

Result = tuple[Exit, str]


def check(args: argparse.Namespace) -> Result:
    """check the environment and print every resolved value with its source"""
    from envtune.supervise import templates

    made = configuration.configure(args.overrides)
    _warn(made)
    templates.render_axolotl(made.config)
    show(output.configuration(made.config, _width(sys.stdout)))
    if args.deep:
        _ask_axolotl(made)
    return Exit.DONE, "the configuration is valid"


def _ask_axolotl(made: Configuration) -> None:
    from envtune.checks import axolotl_validation

    if sys.stderr is not None and sys.stderr.isatty():
        LOG.info("asking Axolotl, which takes about ten seconds to start")
    problems, warnings = axolotl_validation.ask(made)
    for warning in warnings:
        LOG.warning("%s", redaction.redact(warning, made.inputs.secrets))
    if problems:
        raise Refused(problems)


def configure(args: argparse.Namespace) -> Result:
    """make Axolotl's YAML: into the run's folder, or to --output"""
    from envtune.stages import pipeline
    from envtune.supervise import templates

    named = [f"SFT_TEMPLATE={args.template}"] if args.template else []
    made = configuration.configure([*args.overrides, *named])
    text = templates.render_axolotl(made.config)
    if args.check:
        return Exit.DONE, "the configuration is valid"
    _warn(made)
    LOG.info("configuration on %s:", made.facts.machine)
    table = output.configuration(made.config, _width(sys.stderr))
    print(table, file=sys.stderr, flush=True)
    if args.output:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(Path(args.output), text)
        return Exit.DONE, f"wrote {args.output}"
    folder = pipeline.prepare_folder(made).folder
    print(folder)
    return Exit.DONE, f"wrote {folder}/config/axolotl.yaml"


def run(args: argparse.Namespace) -> Result:
    """train: the run in a folder made by configure, or a new one from the environment"""
    from envtune.machine import hardware
    from envtune.runs import folders
    from envtune.stages import pipeline as stages
    from envtune.supervise import nodes, restarts

    inputs = sources.read(args.overrides)
    if args.folder and args.overrides:
        what = "a run folder has its configuration; leave the NAME=VALUE out, or --folder"
        raise Refused([Problem(args.overrides[0].split("=")[0], what)])
    if args.folder:
        claimed, own = folders.open_run(args.folder.resolve()), _given(inputs).own
    else:
        made = configuration.configure(args.overrides)
        _warn(made)
        claimed, own = stages.prepare_folder(made), made.settings.own
        args.folder = claimed.folder  # where its end is counted
    starts = restarts.Starts(claimed.folder, inputs) if hardware.started_by_init() else None
    start = stages.Start(claimed, inputs.passed_on, inputs.secrets, own, starts=starts)
    exit_, message = stages.execute(start)
    if exit_ == Exit.DONE:
        report = json.loads((claimed.folder / "report.json").read_text())
        artifact = "adapter" if (claimed.folder / "adapter").is_dir() else "model"
        shown = os.path.relpath(claimed.folder)
        show(output.summary(report, message.split(":")[0], shown, artifact))
        context = start.context()
        if context.config.setting("SFT_SERVE") and not nodes.rank(context):
            return stages.serve(start)
    return exit_, message


def _given(inputs: sources.Inputs) -> typed.Settings:
    """The settings of this start, which may name a run that was made before."""
    return given.settings(sources.with_documents(inputs))


def show(text: str) -> None:
    """Prints; a reader that has gone away changes nothing about the run."""
    try:
        print(text, flush=True)
    except (BrokenPipeError, AttributeError, ValueError):
        sys.stdout = None  # nothing is left to flush at exit


def serve(args: argparse.Namespace) -> Result:
    """serve a trained run with vLLM until a stop: RUN, or the newest"""
    from envtune.stages import pipeline as stages

    return stages.serve(_start(args))


def smoke_test(args: argparse.Namespace) -> Result:
    """ask a running server of a trained run: models, chat, stream, end of text, key"""
    from envtune.serve import smoke_test

    return smoke_test.test(_start(args).context())


def _start(args: argparse.Namespace) -> "stages.Start":
    """The run that a lone stage works on: a name below the outputs, a folder, or the newest."""
    from envtune.runs import folders
    from envtune.stages import pipeline as stages

    names = [word for word in args.words if "=" not in word]
    if len(names) > 1:
        raise Refused([Problem(names[1], "one run at a time")])
    inputs = sources.read([word for word in args.words if "=" in word])
    given = _given(inputs)
    outputs, _ = paths.folders(given.get, inputs.environ)
    found = folders.named(Path(outputs), next(iter(names), None))
    return stages.Start(found, inputs.passed_on, inputs.secrets, given.own)


def explain(args: argparse.Namespace) -> Result:
    """say where one setting's value comes from, what it overrode and what it means"""
    made = configuration.configure(args.overrides)
    text = output.explanation(made.config, made.settings, args.key)
    show(redaction.redact(text, made.inputs.secrets))
    return Exit.DONE, ""


def login(args: argparse.Namespace) -> Result:
    """try the keys of Hugging Face and W&B; never fails"""
    from envtune.transfer import hub

    environ = sources.read().environ
    for service in (hub.hugging_face, hub.weights_and_biases):
        LOG.info("%s", service(environ))
    return Exit.DONE, ""


def run_name_preview(args: argparse.Namespace) -> Result:
    """print the name of the next run; creates nothing"""
    from envtune.runs import fingerprint, folders

    made = configuration.configure(args.overrides)
    key = made.config.key(fingerprint.contents(made.config))
    name, _ = folders.preview(made.config, key, Path(made.facts.outputs), Path(made.facts.logs))
    print(name.name)
    return Exit.DONE, ""


def print_runtime(args: argparse.Namespace) -> Result:
    """print the run's names and folders as JSON or as shell variables; creates nothing"""
    from envtune.cli import preview

    values = preview.values(configuration.configure(args.overrides))
    if args.format == "json":
        show(json.dumps(values, indent=2))
    else:
        show("\n".join(f"{key}={shlex.quote(value)}" for key, value in values.items()))
    return Exit.DONE, ""


def _lone(stage: str, meaning: str) -> Callable[[argparse.Namespace], Result]:
    """The verb of a stage that may be run again on a trained run."""

    def verb(args: argparse.Namespace) -> Result:
        from envtune.stages import pipeline as stages

        return stages.alone(_start(args), stage)

    verb.__doc__ = f"{meaning}: RUN, or the newest"
    return verb


LONE = {
    "export": "make the adapter of a trained run servable again",
    "quantise": "make a smaller copy of a trained model",
    "parity": "prove that vLLM answers as the trained model does",
    "evaluate": "measure what was trained beside its base",
    "publish": "publish the checked result of a trained run",
}


def finish(args: argparse.Namespace) -> Result:
    """do what SFT_ON_FAIL or SFT_ON_FINISH asks for after an exit with CODE, and exit with it"""
    return ended_with(args.code), ""


def ended_with(code: int) -> Exit:
    """What a code means that a shell has seen: one that is none of ours was a kill or a crash."""
    return Exit(code) if code in list(Exit) else Exit.BUG


def welcome(args: argparse.Namespace) -> Result:
    """tell how the newest run stands and what to do next"""
    show(state())
    return Exit.DONE, ""


def health(args: argparse.Namespace) -> Result:
    """tell whether the newest run, or its server, is well: 0 or 1, for a health check"""
    from envtune.serve import health as checks

    inputs = sources.read()
    well, line = checks.look(Path(paths.folders(_given(inputs).get, inputs.environ)[0]))
    show(line)
    return (Exit.DONE if well else Exit.CONFIG), ""


def state() -> str:
    """How the newest run stands, in a few lines."""
    from envtune.cli import welcome

    try:
        inputs = sources.read()
        return welcome.text(Path(paths.folders(_given(inputs).get, inputs.environ)[0]))
    except Refused as refused:
        return welcome.refused(refused)


def _width(stream: TextIO | None) -> int | None:
    """The terminal's width, or None where the stream is closed or none."""
    if stream is None or not stream.isatty():
        return None
    return os.get_terminal_size(stream.fileno()).columns


def _warn(made: Configuration) -> None:
    LOG.setLevel(made.config.setting("SFT_LOG_LEVEL"))
    for level, lines in (
        (logging.INFO, made.config.notes),
        (logging.WARNING, made.config.warnings),
    ):
        for line in lines:
            LOG.log(level, "%s", redaction.redact(line, made.inputs.secrets))


VERBS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "check": check,
    "configure": configure,
    "explain": explain,
    "run": run,
    **{name: _lone(name, meaning) for name, meaning in LONE.items()},
    "serve": serve,
    "smoke-test": smoke_test,
    "login": login,
    "welcome": welcome,
    "health": health,
    "finish": finish,
    "run-name-preview": run_name_preview,
    "print-runtime": print_runtime,
}

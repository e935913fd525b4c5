"""The verbs that look: they tell what is, or would be, and make nothing."""

import argparse
import json
import logging
import shlex
import sys
from pathlib import Path

from envtune import redaction
from envtune.cli import configuration, output, plan, target
from envtune.cli.console import show, warn, width
from envtune.cli.termination import Result
from envtune.cli.work import need_engines
from envtune.errors import Exit, Refused
from envtune.resolve.config import Configuration
from envtune.settings import sources

LOG = logging.getLogger("envtune")


def check(args: argparse.Namespace) -> Result:
    """check the environment and print every resolved value with its source"""
    from envtune.supervise import templates

    if args.deep:
        need_engines("check --deep")
    made = configuration.configure(args.overrides)
    warn(made)
    templates.prove(made.config)
    show(output.configuration(made.config, width(sys.stdout)))
    for line in plan.summary(made):
        show(line)
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


def explain(args: argparse.Namespace) -> Result:
    """say where one setting's value comes from, what it overrode and what it means"""
    made = configuration.configure(args.overrides)
    text = output.explanation(made.config, made.settings, args.key)
    show(redaction.redact(text, made.inputs.secrets))
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


def welcome(args: argparse.Namespace) -> Result:
    """tell how the newest run stands and what to do next"""
    show(state())
    return Exit.DONE, ""


def health(args: argparse.Namespace) -> Result:
    """tell whether the newest run, or its server, is well: 0 or 1, for a health check"""
    from envtune.serve import health as checks

    inputs = sources.read()
    well, line = checks.look(target.outputs(inputs))
    show(line)
    return (Exit.DONE if well else Exit.CONFIG), ""


def state() -> str:
    """How the newest run stands, in a few lines."""
    from envtune.cli import welcome

    try:
        inputs = sources.read()
        set_up = bool(target.settings_of(inputs).axolotl)
        return welcome.text(target.outputs(inputs), set_up=set_up)
    except Refused as refused:
        return welcome.refused(refused)

"""The verbs of the command, one table.

Each returns an exit code and a line for the termination message. Heavy imports happen inside
the verbs that need them, so that a wrong variable is told at once.
"""

import argparse
from collections.abc import Callable

from envtune.cli import corpus, inspection, seeing, smoke_ddp, work
from envtune.cli.termination import Result

# The stages that may be run again on a trained run.
LONE = {
    "export": "make the adapter of a trained run servable again",
    "quantise": "make a smaller copy of a trained model",
    "parity": "prove that vLLM answers as the trained model does",
    "evaluate": "measure what was trained beside its base",
    "publish": "publish the checked result of a trained run",
}


def _runs(args: argparse.Namespace) -> Result:
    """list the runs: state, step, loss, size, age; --prune frees the finished ones' checkpoints"""
    from envtune.cli import runs

    return runs.runs(args)


def _doctor(args: argparse.Namespace) -> Result:
    """look what ails this machine, or what is set on it: a code, evidence and a fix each"""
    from envtune.cli import doctor

    return doctor.doctor(args)


def _status(args: argparse.Namespace) -> Result:
    """tell how a run stands and what to do next: RUN, or the newest"""
    from envtune.cli import status

    return status.status(args)


def _chat(args: argparse.Namespace) -> Result:
    """talk with a trained run in the terminal: RUN, or the newest"""
    from envtune.cli.chat import verb

    return verb.chat(args)


def _plan(args: argparse.Namespace) -> Result:
    """tell memory, time and price of a training, and what else would do; starts nothing"""
    from envtune.cli import plan

    return plan.plan(args)


VERBS: dict[str, Callable[[argparse.Namespace], Result]] = {
    "check": inspection.check,
    "plan": _plan,
    "configure": work.configure,
    "doctor": _doctor,
    "explain": inspection.explain,
    "run": work.run,
    **{name: work.lone(name, meaning) for name, meaning in LONE.items()},
    "serve": work.serve,
    "chat": _chat,
    "smoke-test": work.smoke_test,
    "smoke-ddp": smoke_ddp.smoke_ddp,
    "runs": _runs,
    "report": seeing.report,
    "watch": seeing.watch,
    "status": _status,
    "login": work.login,
    "copy": work.copy,
    "prepare": corpus.prepare,
    "convert": corpus.convert,
    "validate": corpus.validate,
    "welcome": inspection.welcome,
    "health": inspection.health,
    "finish": work.finish,
    "run-name-preview": inspection.run_name_preview,
    "print-runtime": inspection.print_runtime,
}

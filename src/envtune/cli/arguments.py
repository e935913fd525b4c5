"""The arguments of the command, and what wrong usage says."""

import argparse
import logging
import re
import sys
from pathlib import Path
from typing import Any, NoReturn

from envtune.cli import smoke_ddp
from envtune.cli.termination import terminate
from envtune.cli.verbs import LONE, VERBS
from envtune.errors import Exit
from envtune.settings.spelling import synonyms
from envtune.settings.spelling.nearest import nearest

LOG = logging.getLogger("envtune")
_OF_RUNS = ("serve", "smoke-test", "chat", "runs", "report", "status", "watch")


# The options of each verb; one that is but a text is a switch of that meaning.
_OPTIONS: dict[str, dict[str, str | dict[str, Any]]] = {
    "check": {"--deep": "ask Axolotl itself too (10 s)"},
    "status": {"--json": "an object; times in seconds"},
    "doctor": {"--json": "an object: exit, checks"},
    "plan": {
        "--json": "figures in bytes and seconds",
        "--fits": "the cards that hold the job, and how many of each",
        "--usd": {
            "metavar": "CARD=PRICE", "action": "append", "default": [],
            "help": "with --fits: dollars that one GPU costs an hour",
        },
    },
    "configure": {
        "--template": {
            "metavar": "FILE", "help": "as SFT_TEMPLATE: a Jinja template, or a YAML of defaults",
        },
        "--output": {"metavar": "FILE", "help": "write the YAML there only"},
        "--check": "write nothing",
    },
    "convert": {"--split": {"default": "train", "help": "which one of the Hub's data set"}},
    "chat": {
        "--once": {
            "metavar": "QUESTION",
            "help": "answer it on standard output and end; - reads it from standard input",
        },
        "--base": "show the base's answers too",
        "--system": {"metavar": "TEXT", "help": "the system message"},
        "--local": "load the model here, although a server of it runs",
    },
    "validate": {
        "--errors": {"type": int, "default": 10, "metavar": "N", "help": "name so many rows"},
    },
    "prepare": {
        "--dry-run": "tell, write nothing",
        "--force": "replace rows prepared otherwise",
    },
    "run": {
        "--folder": {"metavar": "DIR", "type": Path, "help": "a run folder made by configure"},
    },
    "runs": {
        "--prune": "free the checkpoints of finished runs, at once; all else of runs stays",
        "--dry-run": "with --prune: tell, free nothing",
        "--json": "a list of objects, sizes in bytes",
    },
    "print-runtime": {"--format": {"choices": ("json", "env"), "default": "json"}},
}  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command; a verb's help is its docstring."""
    made = _Parser(prog="envtune", description="Environment variables in, a fine-tuned model out.")
    made.add_argument("--version", action="store_true", help="print the versions of all parts")
    verbs = made.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__)
        _positional(sub, name)
        _options(sub, name)
    return made


def _positional(sub: argparse.ArgumentParser, name: str) -> None:
    if name == "explain":
        sub.add_argument("key", metavar="KEY", help="a key of Axolotl, or its variable")
    if name in (*LONE, *_OF_RUNS):
        what = "RUN, VLLM.yaml" if name in ("serve", "smoke-test") else "RUN"
        sub.add_argument("words", nargs="*", metavar=f"{what} or NAME=VALUE")
    elif name == "finish":
        sub.add_argument("code", metavar="CODE", type=int)
    elif name == "copy":
        sub.add_argument("source", metavar="SOURCE", help="s3://bucket/prefix, gs://, az://")
        sub.add_argument("folder", metavar="FOLDER", type=Path)
    elif name == "convert":
        rows = "CSV, TSV, JSON, JSON lines, Parquet or Arrow, or a data set of the Hub"
        sub.add_argument("source", metavar="IN", help=rows)
        sub.add_argument("made", metavar="OUT", help="a file of JSON lines that is not there yet")
    elif name == "validate":
        rows = "a file, a folder or a pattern of rows; or a run's folder"
        sub.add_argument("files", nargs="+", metavar="FILE or RUN", help=rows)
    elif name not in ("login", "welcome", "health", "smoke-ddp"):
        sub.add_argument("overrides", nargs="*", metavar="NAME=VALUE", type=_override)


def _options(sub: argparse.ArgumentParser, name: str) -> None:
    if name == "smoke-ddp":
        smoke_ddp.add_flags(sub)
    for flag, meaning in _OPTIONS.get(name, {}).items():
        switch = {"action": "store_true", "help": meaning}
        sub.add_argument(flag, **(switch if isinstance(meaning, str) else meaning))


def _override(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return text


def _meant(message: str) -> str:
    """The verb that was meant where a message tells of one that is none."""
    wrong = re.search(r"VERB: invalid choice: '([^']*)'", message)
    said = wrong[1].lower().replace("_", "-") if wrong else ""
    verb = said and (synonyms.VERBS.get(said) or nearest(said, VERBS))
    return f"; did you mean `envtune {verb}`?" if verb else ""


class _Parser(argparse.ArgumentParser):
    """Wrong usage is the user's to mend: exit 1, and a last word, like any other refusal."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        message += _meant(message)
        LOG.error("%s", message)
        terminate(message)
        sys.exit(Exit.CONFIG)

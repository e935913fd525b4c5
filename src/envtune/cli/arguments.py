"""The arguments of the command, and what wrong usage says."""

import argparse
import logging
import re
import sys
from pathlib import Path
from typing import NoReturn

from envtune.cli import smoke_ddp
from envtune.cli.termination import terminate
from envtune.cli.verbs import LONE, VERBS
from envtune.errors import Exit
from envtune.settings.spelling import synonyms
from envtune.settings.spelling.nearest import nearest

LOG = logging.getLogger("envtune")
_OF_RUNS = ("serve", "smoke-test", "chat", "runs", "report", "status", "watch")


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
    if name == "check":
        sub.add_argument("--deep", action="store_true", help="ask Axolotl itself too (10 s)")
    elif name == "status":
        sub.add_argument("--json", action="store_true", help="an object; times in seconds")
    elif name == "doctor":
        sub.add_argument("--json", action="store_true", help="an object: exit, checks")
    elif name == "plan":
        sub.add_argument("--json", action="store_true", help="figures in bytes and seconds")
        which = "the cards that hold the job, and how many of each"
        sub.add_argument("--fits", action="store_true", help=which)
        price = "with --fits: dollars that one GPU costs an hour"
        sub.add_argument("--usd", metavar="CARD=PRICE", action="append", default=[], help=price)
    elif name == "configure":
        template = "as SFT_TEMPLATE: a Jinja template, or a YAML of defaults"
        sub.add_argument("--template", metavar="FILE", help=template)
        sub.add_argument("--output", metavar="FILE", help="write the YAML there only")
        sub.add_argument("--check", action="store_true", help="write nothing")
    elif name == "convert":
        sub.add_argument("--split", default="train", help="which one of the Hub's data set")
    elif name == "chat":
        once = "answer it on standard output and end; - reads it from standard input"
        sub.add_argument("--once", metavar="QUESTION", help=once)
        sub.add_argument("--base", action="store_true", help="show the base's answers too")
        sub.add_argument("--system", metavar="TEXT", help="the system message")
        local = "load the model here, although a server of it runs"
        sub.add_argument("--local", action="store_true", help=local)
    elif name == "validate":
        sub.add_argument("--errors", type=int, default=10, metavar="N", help="name so many rows")
    elif name == "prepare":
        sub.add_argument("--dry-run", action="store_true", help="tell, write nothing")
        sub.add_argument("--force", action="store_true", help="replace rows prepared otherwise")
    elif name == "run":
        folder = "a run folder made by configure"
        sub.add_argument("--folder", metavar="DIR", type=Path, help=folder)
    elif name == "runs":
        free = "free the checkpoints of finished runs, at once; results and unfinished runs stay"
        sub.add_argument("--prune", action="store_true", help=free)
        sub.add_argument("--dry-run", action="store_true", help="with --prune: tell, free nothing")
        sub.add_argument("--json", action="store_true", help="a list of objects, sizes in bytes")
    elif name == "smoke-ddp":
        smoke_ddp.add_flags(sub)
    elif name == "print-runtime":
        sub.add_argument("--format", choices=("json", "env"), default="json")


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

"""The command. `envtune` and `python -m envtune` are the same.

Every way out has its exit code and its line in the termination message.
"""

import argparse
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from envtune import redaction
from envtune.cli import output
from envtune.cli.verbs import LONE, VERBS, Result, ended_with, show, state
from envtune.errors import Exit, NothingSet, Refused, of_file
from envtune.machine import certificates
from envtune.settings import sources
from envtune.supervise import finish
from envtune.supervise.signals import StopSignals

LOG = logging.getLogger("envtune")
_MESSAGE_LIMIT = 4096
_KUBERNETES_LOG = "/dev/termination-log"


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="envtune", description="Environment variables in, a fine-tuned model out."
    )
    parser.add_argument("--version", action="store_true", help="print the versions of all parts")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    for name, verb in VERBS.items():
        sub = verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__)
        if name == "explain":
            sub.add_argument("key", metavar="KEY", help="a key of Axolotl, or its variable")
        if name in (*LONE, "serve", "smoke-test"):
            sub.add_argument("words", nargs="*", metavar="RUN or NAME=VALUE")
        elif name == "finish":
            sub.add_argument("code", metavar="CODE", type=int)
        elif name not in ("login", "welcome", "health"):
            sub.add_argument("overrides", nargs="*", metavar="NAME=VALUE", type=_override)
        if name == "check":
            sub.add_argument("--deep", action="store_true", help="ask Axolotl itself too (10 s)")
        if name == "configure":
            sub.add_argument(
                "--template",
                metavar="FILE",
                help="as SFT_TEMPLATE: a Jinja template, or a YAML of defaults",
            )
            sub.add_argument("--output", metavar="FILE", help="write the YAML there only")
            sub.add_argument("--check", action="store_true", help="write nothing")
        if name == "run":
            sub.add_argument(
                "--folder", metavar="DIR", type=Path, help="a run folder made by configure"
            )
        if name == "print-runtime":
            sub.add_argument("--format", choices=("json", "env"), default="json")
    return parser


def _override(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; every way out has its exit code and its termination message."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    args = _parser().parse_args(argv)
    if args.version:
        from envtune.runs import record

        show("\n".join(f"{name} {version}" for name, version in record.versions().items()))
        return Exit.DONE
    if args.verb is None:
        print(_usage(), end="")
        return Exit.CONFIG
    signal.signal(signal.SIGTERM, _terminated)
    exit_, message = _guarded(_logged(VERBS[args.verb]), args)
    if args.verb == "finish":
        exit_ = ended_with(args.code)  # it has been told, whatever else is wrong
    stops = StopSignals().install()  # a stop from here on changes the end, not its code
    if message and not message.startswith(output.NOTHING_SET):
        LOG.log(logging.INFO if exit_ == Exit.DONE else logging.ERROR, "%s", message)
    if message and (args.verb in ("run", "serve") or exit_ != Exit.DONE):
        terminate(message)
    if args.verb in ("run", "serve", "finish"):
        _end(finish.End(exit_, message, getattr(args, "folder", None)), args, stops)
    return int(exit_)


def _usage() -> str:
    return output.usage(os.environ.get("FLAVOR", ""))


def _end(end: finish.End, args: argparse.Namespace, stops: StopSignals) -> None:
    """Does what is to be done when the container's work is over. Never changes the exit code."""
    words = (*getattr(args, "overrides", ()), *getattr(args, "words", ()))
    finish.act(end, [word for word in words if "=" in word], state, stops)


def _logged(verb: Callable[[argparse.Namespace], Result]) -> Callable[..., Result]:
    """The verb at the environment's log level and without a secret in its last word."""

    def run_verb(args: argparse.Namespace) -> Result:
        inputs = sources.read()
        certificates.adopt(inputs.environ)
        level = logging.getLevelName(inputs.environ.get("SFT_LOG_LEVEL", "INFO"))
        LOG.setLevel(level if isinstance(level, int) else logging.INFO)
        exit_, message = _guarded(verb, args)
        return exit_, redaction.redact(message, inputs.secrets)

    return run_verb


class _Parser(argparse.ArgumentParser):
    """Wrong usage is the user's to mend: exit 1, and a last word, like any other refusal."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        LOG.error("%s", message)
        terminate(message)
        sys.exit(Exit.CONFIG)


class _Terminated(BaseException):
    """SIGTERM outside of the stages, which have a handler of their own."""


def _terminated(number: int, frame: FrameType | None) -> None:
    StopSignals.came = True
    raise _Terminated


def _guarded(verb: Callable[[argparse.Namespace], Result], args: argparse.Namespace) -> Result:
    try:
        return verb(args)
    except NothingSet as nothing:
        print(usage := _usage(), end="", file=sys.stderr)
        return nothing.exit, usage
    except Refused as refused:
        return refused.exit, "\n".join(map(str, refused.problems))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED, "interrupted before training"
    except _Terminated:
        return Exit.STOPPED, "stopped before training: nothing to save yet"
    except OSError as error:
        return of_file(error)
    except Exception:
        return Exit.BUG, f"envtune failed; this is a bug\n{traceback.format_exc()}"


def terminate(message: str) -> None:
    """Leaves the last word where Kubernetes looks for it."""
    named = os.environ.get("TERMINATION_LOG_FILE")
    target = named or _KUBERNETES_LOG
    if not named and not Path(target).exists():
        return
    data = message.encode()
    if len(data) > _MESSAGE_LIMIT:
        data = data[: _MESSAGE_LIMIT - 4].decode(errors="ignore").encode() + b" ..."
    try:
        Path(target).write_bytes(data)
    except OSError as error:
        LOG.warning("the termination message cannot be written to %s: %s", target, error.strerror)


if __name__ == "__main__":
    sys.exit(main())

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
from types import FrameType

from envtune.cli import output
from envtune.cli.arguments import parser
from envtune.cli.console import Discreet, show
from envtune.cli.inspection import state
from envtune.cli.termination import BEFORE_TRAINING, Result, ended_with, terminate
from envtune.cli.verbs import VERBS
from envtune.errors import Exit, NothingSet, Refused, of_file
from envtune.machine import certificates
from envtune.settings import sources
from envtune.supervise import finish
from envtune.supervise.signals import StopSignals
from envtune.watch import notice

LOG = logging.getLogger("envtune")

# What the door has blocked, so that it waits for the handlers.
_HELD_BACK = (signal.SIGTERM, signal.SIGINT)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; every way out has its exit code and its termination message."""
    logging.basicConfig(stream=sys.stderr)
    discreet = Discreet(os.environ)
    logging.getLogger().handlers[0].setFormatter(discreet)
    args = parser().parse_args(argv)
    if args.version:
        show(_versions())
        return Exit.DONE
    if args.verb is None:
        print(_usage(), end="")
        return Exit.CONFIG
    exit_, message = _guarded(_logged(VERBS[args.verb], discreet), args)
    message = discreet.clean(message)
    if args.verb == "finish":
        exit_ = ended_with(args.code)  # it has been told, whatever else is wrong
    stops = StopSignals().install()  # a stop from here on changes the end, not its code
    if message:
        _tell(exit_, message, args.verb)
    if args.verb in ("run", "serve", "finish"):
        _end(finish.End(exit_, message, getattr(args, "folder", None)), args, stops)
    return int(exit_)


def _versions() -> str:
    from envtune.runs import record

    return "\n".join(f"{name} {version}" for name, version in record.versions().items())


def _usage() -> str:
    return output.usage(os.environ.get("FLAVOR", ""))


def _tell(exit_: Exit, message: str, verb: str) -> None:
    if not message.startswith(output.NOTHING_SET):
        LOG.log(logging.INFO if exit_ == Exit.DONE else logging.ERROR, "%s", message)
    if verb in ("run", "serve", "smoke-ddp") or (exit_ != Exit.DONE and verb != "chat"):
        terminate(message)


def _end(end: finish.End, args: argparse.Namespace, stops: StopSignals) -> None:
    """Does what is to be done when the container's work is over. Never changes the exit code."""
    words = (*getattr(args, "overrides", ()), *getattr(args, "words", ()))
    arguments = [word for word in words if "=" in word]
    if end.exit != Exit.DONE or not getattr(args, "told", False):
        notice.tell(end, arguments)
    finish.act(end, arguments, state, stops)


def _logged(
    verb: Callable[[argparse.Namespace], Result], discreet: Discreet
) -> Callable[..., Result]:
    """The verb at the environment's log level; what it says hides the secrets of files too."""

    def run_verb(args: argparse.Namespace) -> Result:
        signal.signal(signal.SIGTERM, _terminated)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD_BACK)
        inputs = sources.read()
        discreet.environ = inputs.environ
        certificates.adopt(inputs.environ)
        level = logging.getLevelName(inputs.environ.get("SFT_LOG_LEVEL", "INFO"))
        LOG.setLevel(level if isinstance(level, int) else logging.INFO)
        return _guarded(verb, args)

    return run_verb


class _Terminated(BaseException):
    """SIGTERM outside of the stages, which have a handler of their own."""


def _terminated(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough
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
        return Exit.INTERRUPTED, BEFORE_TRAINING[Exit.INTERRUPTED]
    except _Terminated:
        return Exit.STOPPED, BEFORE_TRAINING[Exit.STOPPED]
    except OSError as error:
        return of_file(error)
    except Exception:
        return Exit.BUG, f"envtune failed; this is a bug\n{traceback.format_exc()}"


if __name__ == "__main__":
    sys.exit(main())

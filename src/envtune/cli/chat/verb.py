"""The verb: which run is talked with, and who answers for it."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from envtune.artifacts import adapterfiles, modelfiles
from envtune.cli import target
from envtune.cli.chat.loaded import loaded
from envtune.cli.chat.served import Served, unheard
from envtune.cli.chat.terminal import Terminal, tell
from envtune.cli.chat.voices import Voice, written
from envtune.cli.termination import Result
from envtune.cli.work import need_engines
from envtune.errors import Exit, Problem, Refused
from envtune.runs import contents, folders, lease, listing
from envtune.serve import access, health
from envtune.serve.api import Api
from envtune.supervise.signals import StopSignals
from envtune.supervise.stage import Context
from envtune.watch import story


def chat(args: argparse.Namespace) -> Result:
    """talk with a trained run in the terminal: RUN, or the newest"""
    question = _question(args.once)
    _end_by_signals()
    start = target.start(args, StopSignals())
    _trained(start.run)
    try:
        with _voice(start.context(), local=args.local) as voice:
            _possible(args, voice)
            terminal = Terminal(
                voice, start.run.name, beside=args.base, system=written(args.system or "")
            )
            return (terminal.converse() if question is None else terminal.once(question)), ""
    except KeyboardInterrupt:
        return Exit.INTERRUPTED, ""


def _question(given: str | None) -> str | None:
    question = sys.stdin.read() if given == "-" else given
    if question is not None and not question.strip():
        raise Refused([Problem("--once", "the question is empty")])
    return question and written(question).strip()


def _end_by_signals() -> None:
    """Ctrl-C is the chat's; a stop ends it and what it has loaded."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def _trained(run: folders.Run) -> None:
    """Raises Refused where nothing is trained to its end yet."""
    if listing.is_trained(folders.read_record(run.folder)):
        return
    if lease.holder(run.folder):
        told = story.of(run.folder)
        where = f" (step {told.step} of {told.max_steps})" if told.step else ""
        raise Refused([Problem(run.name, f"is still at work{where}; chat once it is trained")])
    text = "is not trained to its end; start it again with the settings that it was made with"
    raise Refused([Problem(run.name, text)])


@contextmanager
def _voice(context: Context, *, local: bool) -> Iterator[Voice]:
    """The run's server where it runs here, else the model itself."""
    run, generation = context.run.folder, context.config.setting("SFT_EVAL_GENERATION") or {}
    url = "" if local else health.address(run)
    if url:
        if lost := unheard(generation):
            tell(f"SFT_EVAL_GENERATION: a server does not take {', '.join(lost)}")
        api = Api(url, access.key(context.environ))
        yield Served(api, run, context.run.name, generation)
        return
    artifact = _artifact(run)
    need_engines("chat")
    tell(f"loading {artifact.name} of {context.run.name} ...")
    with loaded(context, artifact, generation, tell) as voice:
        yield voice


def _artifact(run: Path) -> Path:
    """What was trained. Raises Refused where it is not there any more, or not whole."""
    adapter, model = run / contents.ADAPTER, run / contents.MODEL
    if not (adapter.is_dir() or model.is_dir()):
        text = f"{run} holds neither {adapter.name}/ nor {model.name}/ any more"
        raise Refused([Problem("chat", text, Exit.ARTIFACT)])
    found = adapter if adapter.is_dir() else model
    parts = (modelfiles.CONFIG, modelfiles.WEIGHTS, modelfiles.TOKENIZER)
    told = adapterfiles.problems(found) if found == adapter else modelfiles.problems(found, parts)
    if told:
        raise Refused(Problem("chat", text, Exit.ARTIFACT) for text in told)
    return found


def _possible(args: argparse.Namespace, voice: Voice) -> None:
    """Raises Refused where what was asked for by an option is not to be had."""
    if args.base and voice.about.base:
        raise Refused([Problem("--base", f"{voice.about.base}; --local loads both here")])
    if args.system and (voice.about.reason or not voice.about.system):
        raise Refused([Problem("--system", "no system message was trained")])

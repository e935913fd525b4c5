"""The command: a table of verbs. `envtune` and `python -m envtune` are the same.

Every verb returns an exit code and a line for the termination message. Heavy imports
happen inside the verbs that need them, so that a wrong variable is told at once.
"""

import argparse
import errno
import json
import logging
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO

from envtune import ending, files, flow, settings, sources, tables, trust
from envtune.errors import Exit, NothingSet, Problem, Refused
from envtune.stops import StopSignals

if TYPE_CHECKING:
    from envtune import run as stages

LOG = logging.getLogger("envtune")
_MESSAGE_LIMIT = 4096
_KUBERNETES_LOG = "/dev/termination-log"
# A volume that is full or does not answer; the next start may find it well.
_VOLUME = (errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EIO, errno.ETIMEDOUT)

Result = tuple[Exit, str]


def check(args: argparse.Namespace) -> Result:
    """check the environment and print every resolved value with its source"""
    from envtune import render

    made = flow.configure(args.overrides)
    _warn(made)
    render.render_axolotl(made.config)
    _show(tables.configuration(made.config, _width(sys.stdout)))
    if args.deep:
        _ask_axolotl(made)
    return Exit.DONE, "the configuration is valid"


def _ask_axolotl(made: flow.Configuration) -> None:
    from envtune import validation

    if sys.stderr is not None and sys.stderr.isatty():
        LOG.info("asking Axolotl, which takes about ten seconds to start")
    problems, warnings = validation.ask(made)
    for warning in warnings:
        LOG.warning("%s", sources.redact(warning, made.inputs.secrets))
    if problems:
        raise Refused(problems)


def configure(args: argparse.Namespace) -> Result:
    """make Axolotl's YAML: into the run's folder, or to --output"""
    from envtune import render, run

    named = [f"SFT_TEMPLATE={args.template}"] if args.template else []
    made = flow.configure([*args.overrides, *named])
    text = render.render_axolotl(made.config)
    if args.check:
        return Exit.DONE, "the configuration is valid"
    _warn(made)
    LOG.info("configuration on %s:", made.facts.machine)
    table = tables.configuration(made.config, _width(sys.stderr))
    print(table, file=sys.stderr, flush=True)
    if args.output:
        Path(args.output).parent.mkdir(parents=True, exist_ok=True)
        files.write_text(Path(args.output), text)
        return Exit.DONE, f"wrote {args.output}"
    folder = run.prepare_folder(made).folder
    print(folder)
    return Exit.DONE, f"wrote {folder}/config/axolotl.yaml"


def run(args: argparse.Namespace) -> Result:
    """train: the run in a folder made by configure, or a new one from the environment"""
    from envtune import hardware, nodes, runs
    from envtune import run as stages

    inputs = sources.read()
    if args.folder and args.overrides:
        what = "a run folder has its configuration; leave the NAME=VALUE out, or --folder"
        raise Refused([Problem(args.overrides[0].split("=")[0], what)])
    if args.folder:
        claimed, own = runs.open_run(Path(args.folder).resolve()), _given(inputs).own
    else:
        made = flow.configure(args.overrides)
        _warn(made)
        claimed, own = stages.prepare_folder(made), made.settings.own
    start = stages.Start(
        claimed, inputs.passed_on, inputs.secrets, own, automatic=hardware.started_by_init()
    )
    exit_, message = stages.execute(start)
    if exit_ == Exit.DONE:
        report = json.loads((claimed.folder / "report.json").read_text())
        artifact = "adapter" if (claimed.folder / "adapter").is_dir() else "model"
        shown = os.path.relpath(claimed.folder)
        _show(tables.summary(report, message.split(":")[0], shown, artifact))
        context = start.context()
        if context.config.setting("SFT_SERVE") and not nodes.rank(context):
            return stages.serve(start)
    return exit_, message


def _given(inputs: sources.Inputs) -> settings.Settings:
    """The settings of this start, which may name a run that was made before."""
    return flow.meant(settings.load(sources.with_documents(inputs)))


def _show(text: str) -> None:
    """Prints; a reader that has gone away changes nothing about the run."""
    try:
        print(text, flush=True)
    except (BrokenPipeError, AttributeError, ValueError):
        sys.stdout = None  # nothing is left to flush at exit


def serve(args: argparse.Namespace) -> Result:
    """serve a trained run with vLLM until a stop: RUN, or the newest"""
    from envtune import run as stages

    return stages.serve(_start(args))


def smoke_test(args: argparse.Namespace) -> Result:
    """ask a running server of a trained run: models, chat, stream, end of text, key"""
    from envtune import smoke

    return smoke.test(_start(args).context())


def _start(args: argparse.Namespace) -> "stages.Start":
    """The run that a lone stage works on: a name below the outputs, a folder, or the newest."""
    from envtune import run as stages
    from envtune import runs

    names = [word for word in args.words if "=" not in word]
    if len(names) > 1:
        raise Refused([Problem(names[1], "one run at a time")])
    inputs = sources.read([word for word in args.words if "=" in word])
    given = _given(inputs)
    outputs, _ = flow.folders(given, inputs.environ)
    found = runs.named(Path(outputs), next(iter(names), None))
    return stages.Start(found, inputs.passed_on, inputs.secrets, given.own)


def explain(args: argparse.Namespace) -> Result:
    """say where one setting's value comes from, what it overrode and what it means"""
    made = flow.configure(args.overrides)
    text = tables.explanation(made.config, made.settings, args.key)
    _show(sources.redact(text, made.inputs.secrets))
    return Exit.DONE, ""


def login(args: argparse.Namespace) -> Result:
    """try the keys of Hugging Face and W&B; never fails"""
    from envtune import hub

    for service in (hub.hugging_face, hub.weights_and_biases):
        LOG.info("%s", service(sources.read().environ))
    return Exit.DONE, ""


def run_name_preview(args: argparse.Namespace) -> Result:
    """print the name of the next run; creates nothing"""
    from envtune import fingerprint, runs

    made = flow.configure(args.overrides)
    key = made.config.key(fingerprint.contents(made.config))
    name, _ = runs.preview(made.config, key, Path(made.outputs), Path(made.logs))
    print(name.name)
    return Exit.DONE, ""


def print_runtime(args: argparse.Namespace) -> Result:
    """print the run's names and folders as JSON or as shell variables; creates nothing"""
    from envtune import fingerprint, runs

    made = flow.configure(args.overrides)
    key = made.config.key(fingerprint.contents(made.config))
    name, folder = runs.preview(made.config, key, Path(made.outputs), Path(made.logs))
    values = {
        "RUN_NAME": name.name,
        "RUN_NUMBER": str(name.index),
        "RUN_NAME_PREFIX": name.prefix,
        "RUN_MODEL_SLUG": name.model,
        "RUN_DATASET_SLUG": name.dataset,
        "RUN_SIZE_SLUG": name.size,
        "RUN_DIR_NAME": folder.name,
        "RUN_OUTPUTS_DIR": str(folder),
        "RUN_LOGS_DIR": str(Path(made.logs) / name.name),
        "RUN_KEY": key,
        "DEVICE": made.config.device,
        "DEBUG_PIPELINE": str(int(made.config.setting("SFT_LOG_LEVEL") == "DEBUG")),
        "TENSORBOARD_ENABLED": str(int(bool(made.config.plain().get("use_tensorboard")))),
        **_to_be_served(made, folder),
    }
    if args.format == "json":
        _show(json.dumps(values, indent=2))
    else:
        _show("\n".join(f"{key}={shlex.quote(value)}" for key, value in values.items()))
    return Exit.DONE, ""


def _lone(stage: str, meaning: str) -> Callable[[argparse.Namespace], Result]:
    """The verb of a stage that may be run again on a trained run."""

    def verb(args: argparse.Namespace) -> Result:
        from envtune import run as stages

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


def _to_be_served(made: flow.Configuration, folder: Path) -> dict[str, str]:
    from envtune import served
    from envtune.contract import SERVE_FLAGS

    source, path = served.planned(made.config, folder)
    longest = (made.config.setting(SERVE_FLAGS) or {}).get("max_model_len")
    return {
        "SERVED_MODEL_SOURCE": source,
        "SERVED_MODEL_PATH": str(path),
        "SERVED_MODEL_RELPATH": os.path.relpath(path, folder.parent),
        "SERVED_MODEL_MAX_LEN": str(longest or ""),
        "POST_FINETUNE_TARGETS": " ".join(
            name for name in _AFTER if made.config.setting(_AFTER[name])
        ),
    }


# The stages after training that a user turns on, and by what.
_AFTER = {
    "merge": "SFT_MERGE",
    "quantise": "SFT_QUANTISE",
    "evaluate": "SFT_EVALUATE",
    "publish": "SFT_PUSH_TO",
    "serve": "SFT_SERVE",
}


def finish(args: argparse.Namespace) -> Result:
    """do what SFT_ON_FAIL or SFT_ON_FINISH asks for after an exit with CODE, and exit with it"""
    return Exit(args.code), ""


def welcome(args: argparse.Namespace) -> Result:
    """tell how the newest run stands and what to do next"""
    _show(_state())
    return Exit.DONE, ""


def _state() -> str:
    from envtune import welcome as state

    try:
        inputs = sources.read()
        return state.text(Path(flow.folders(_given(inputs), inputs.environ)[0]))
    except Refused as refused:
        return state.refused(refused)


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
    "finish": finish,
    "run-name-preview": run_name_preview,
    "print-runtime": print_runtime,
}


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
            sub.add_argument("code", metavar="CODE", type=int, choices=list(Exit))
        elif name not in ("login", "welcome"):
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
            sub.add_argument("--folder", metavar="DIR", help="a run folder made by configure")
        if name == "print-runtime":
            sub.add_argument("--format", choices=("json", "env"), default="json")
    return parser


def _override(text: str) -> str:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=VALUE")
    return text


def _width(stream: TextIO | None) -> int | None:
    """The terminal's width, or None where the stream is closed or none."""
    if stream is None or not stream.isatty():
        return None
    return os.get_terminal_size(stream.fileno()).columns


def _warn(made: flow.Configuration) -> None:
    LOG.setLevel(made.config.setting("SFT_LOG_LEVEL"))
    for level, lines in (
        (logging.INFO, made.config.notes),
        (logging.WARNING, made.config.warnings),
    ):
        for line in lines:
            LOG.log(level, "%s", sources.redact(line, made.inputs.secrets))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a verb; every way out has its exit code and its termination message."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    args = _parser().parse_args(argv)
    if args.version:
        from envtune import record

        _show("\n".join(f"{name} {version}" for name, version in record.versions().items()))
        return Exit.DONE
    if args.verb is None:
        print(tables.USAGE, end="")
        return Exit.CONFIG
    signal.signal(signal.SIGTERM, _terminated)
    exit_, message = _guarded(_logged(VERBS[args.verb]), args)
    if args.verb == "finish":
        exit_ = Exit(args.code)  # it has been told, whatever else is wrong
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what is left takes no time
    if message and message != tables.USAGE:
        LOG.log(logging.INFO if exit_ == Exit.DONE else logging.ERROR, "%s", message)
    if message and (args.verb in ("run", "serve") or exit_ != Exit.DONE):
        terminate(message)
    if args.verb in ("run", "serve", "finish"):
        _end(exit_, args)
    return int(exit_)


def _end(exit_: Exit, args: argparse.Namespace) -> None:
    """Does what is to be done when the container's work is over. Never changes the exit code."""
    words = (*getattr(args, "overrides", ()), *getattr(args, "words", ()))
    if StopSignals.came:
        return  # whoever stopped it decides what comes next
    ending.act(exit_, [word for word in words if "=" in word], _state)


def _logged(verb: Callable[[argparse.Namespace], Result]) -> Callable[..., Result]:
    """The verb at the environment's log level and without a secret in its last word."""

    def run_verb(args: argparse.Namespace) -> Result:
        inputs = sources.read()
        trust.adopt(inputs.environ)
        level = logging.getLevelName(inputs.environ.get("SFT_LOG_LEVEL", "INFO"))
        LOG.setLevel(level if isinstance(level, int) else logging.INFO)
        exit_, message = _guarded(verb, args)
        return exit_, sources.redact(message, inputs.secrets)

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
    raise _Terminated


def _guarded(verb: Callable[[argparse.Namespace], Result], args: argparse.Namespace) -> Result:
    try:
        return verb(args)
    except NothingSet as nothing:
        print(tables.USAGE, end="", file=sys.stderr)
        return nothing.exit, tables.USAGE
    except Refused as refused:
        return refused.exit, "\n".join(map(str, refused.problems))
    except KeyboardInterrupt:
        return Exit.INTERRUPTED, "interrupted before training"
    except _Terminated:
        return Exit.STOPPED, "stopped before training: nothing to save yet"
    except OSError as error:
        exit_ = Exit.DISK if error.errno in _VOLUME else Exit.CONFIG
        return exit_, f"{error.filename or 'a file'}: {error.strerror}"
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

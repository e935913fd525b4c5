"""The settings, the outputs and the run that a verb works on."""

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from envtune.errors import Problem, Refused
from envtune.settings import given, paths, sources
from envtune.settings.typed import Settings
from envtune.supervise.signals import StopSignals

if TYPE_CHECKING:
    from envtune.runs.folders import Run
    from envtune.stages import pipeline

LOG = logging.getLogger("envtune")


def settings_of(inputs: sources.Inputs) -> Settings:
    """The settings of this start, which may name a run that was made before."""
    return given.settings(sources.with_documents(inputs))


def outputs(inputs: sources.Inputs) -> Path:
    """The folder of all runs."""
    return _outputs(settings_of(inputs), inputs)


def _outputs(settings: Settings, inputs: sources.Inputs) -> Path:
    return Path(paths.folders(settings.get, inputs.environ)[0])


def start(args: argparse.Namespace, stops: StopSignals | None = None) -> "pipeline.Start":
    """The run that a lone stage works on: a name below the outputs, a folder, or the newest that
    is trained to its end; a YAML of vLLM's flags names one, and comes before what else the
    command line says. `stops` that are not installed leave Ctrl-C to the caller."""
    from envtune.cli import vllm_file
    from envtune.runs import folders
    from envtune.stages import pipeline

    names = _names(args)
    if len(names) > 1:
        raise Refused([Problem(names[1], "one run at a time")])
    name, told = next(iter(names), None), [word for word in args.words if "=" in word]
    if name and vllm_file.is_one(name):
        asked = vllm_file.read(name)
        given = {word.partition("=")[0] for word in told}
        told += [word for word in asked.settings if word.partition("=")[0] not in given]
        name = asked.run
    inputs = sources.read(told)
    settings = settings_of(inputs)
    where = _outputs(settings, inputs)
    found = folders.named(where, name) if name else _newest(where)
    stops = stops or StopSignals().install()
    return pipeline.Start(found, inputs.passed_on, inputs.secrets, settings.own, stops)


def named(args: argparse.Namespace) -> tuple[Path, Path, list[str]]:
    """The folder of all runs, that of what they share, and the names of some of them."""
    inputs = sources.read([word for word in args.words if "=" in word])
    settings = settings_of(inputs)
    where = _outputs(settings, inputs)
    caches = paths.kept(settings.get("SFT_CACHE_DIR"), inputs.environ, str(where))
    return where, Path(caches), _names(args)


def _names(args: argparse.Namespace) -> list[str]:
    return [word for word in args.words if "=" not in word]


def _newest(outputs: Path) -> "Run":
    """The newest run that is trained to its end; where there is none the newest attempt, of which
    a stage says what is missing."""
    from envtune.runs import folders, listing

    found = listing.trained(outputs)
    newest = folders.named(outputs, None) if found is None else listing.runs(outputs)[0]
    if found is not None and found != newest:
        LOG.info(
            "%s: the newest run that is trained to its end; %s is not", found.name, newest.name
        )
    return found or newest

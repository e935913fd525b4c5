"""The settings, the outputs and the run that a verb works on."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from envtune.errors import Problem, Refused
from envtune.settings import given, paths, sources
from envtune.settings.typed import Settings

if TYPE_CHECKING:
    from envtune.stages import pipeline


def settings_of(inputs: sources.Inputs) -> Settings:
    """The settings of this start, which may name a run that was made before."""
    return given.settings(sources.with_documents(inputs))


def outputs(inputs: sources.Inputs) -> Path:
    """The folder of all runs."""
    return _outputs(settings_of(inputs), inputs)


def _outputs(settings: Settings, inputs: sources.Inputs) -> Path:
    return Path(paths.folders(settings.get, inputs.environ)[0])


def start(args: argparse.Namespace) -> "pipeline.Start":
    """The run that a lone stage works on: a name below the outputs, a folder, or the newest; a
    YAML of vLLM's flags names one, and comes before what else the command line says."""
    from envtune.cli import vllm_file
    from envtune.runs import folders
    from envtune.stages import pipeline

    names = [word for word in args.words if "=" not in word]
    if len(names) > 1:
        raise Refused([Problem(names[1], "one run at a time")])
    name, told = next(iter(names), None), [word for word in args.words if "=" in word]
    if name and vllm_file.is_one(name):
        asked = vllm_file.read(name)
        named = {word.partition("=")[0] for word in told}
        told += [word for word in asked.settings if word.partition("=")[0] not in named]
        name = asked.run
    inputs = sources.read(told)
    settings = settings_of(inputs)
    found = folders.named(_outputs(settings, inputs), name)
    return pipeline.Start(found, inputs.passed_on, inputs.secrets, settings.own)

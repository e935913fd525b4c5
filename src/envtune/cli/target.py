"""The settings, the outputs and the run that a verb works on."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from envtune.cli import configuration
from envtune.errors import Problem, Refused
from envtune.resolve import facts
from envtune.settings import loading, sources

if TYPE_CHECKING:
    from envtune.stages import pipeline


def given(inputs: sources.Inputs) -> loading.Settings:
    """The settings of this start, which may name a run that was made before."""
    return configuration.meant(loading.load(sources.with_documents(inputs)))


def outputs(inputs: sources.Inputs) -> Path:
    """The folder of all runs."""
    return _outputs(given(inputs), inputs)


def _outputs(settings: loading.Settings, inputs: sources.Inputs) -> Path:
    return Path(facts.folders(settings.get, inputs.environ)[0])


def start(args: argparse.Namespace) -> "pipeline.Start":
    """The run that a lone stage works on: a name below the outputs, a folder, or the newest."""
    from envtune.runs import folders
    from envtune.stages import pipeline

    names = [word for word in args.words if "=" not in word]
    if len(names) > 1:
        raise Refused([Problem(names[1], "one run at a time")])
    inputs = sources.read([word for word in args.words if "=" in word])
    settings = given(inputs)
    found = folders.named(_outputs(settings, inputs), next(iter(names), None))
    return pipeline.Start(found, inputs.passed_on, inputs.secrets, settings.own)

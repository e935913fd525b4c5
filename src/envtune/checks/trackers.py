"""Whether what a run is tracked by is installed and can be written."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from envtune.errors import Problem
from envtune.machine.volumes import writable
from envtune.resolve.config import Facts
from envtune.settings.typed import Settings

# A tracker's keys, its package, and what to do where that is not installed.
_CLIENTS = (
    (("use_mlflow", "mlflow_experiment_name"), "mlflow", "pip install mlflow-skinny"),
    (("use_comet", "comet_project_name"), "comet_ml", "pip install comet-ml"),
    (("use_wandb", "wandb_project"), "wandb", "pip install wandb"),
    (("use_tensorboard",), "tensorboard", "pip install tensorboard"),
)


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """What would end the training where it begins to be tracked."""
    given = {key: setting for key, setting in settings.axolotl.items() if setting.value}
    for keys, package, fix in _CLIENTS:
        for key in keys:
            if key in given and importlib.util.find_spec(package) is None:
                what = f"needs {package}, which is not installed; unset it, or {fix}"
                yield Problem(given[key].name, what)
    for key in ("use_trackio", "trackio_project_name"):
        if key in given:
            what = "cannot be used: the trackio that Axolotl pins does not fit its transformers"
            yield Problem(given[key].name, f"{what}; use_tensorboard writes files too")
    named = {"MLFLOW_TRACKING_URI": facts.tracking.mlflow_uri}
    if "mlflow_tracking_uri" in given:
        setting = given["mlflow_tracking_uri"]
        named = {setting.name: str(setting.value)}
    for name, uri in named.items():
        yield from _store(name, uri)


def _store(name: str, uri: str) -> Iterator[Problem]:
    """A store of files, which MLflow 3 no longer takes, or a database that cannot be made."""
    if uri.startswith(("file:", "/", "./")):
        what = "is a store of files, which MLflow refuses; set sqlite:////folder/mlflow.db, "
        yield Problem(name, f"{uri} {what}or the http:// address of a server")
    if uri.startswith("sqlite:////"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        if not os.path.isdir(folder):  # False for a name that is too long, too
            yield Problem(name, f"{uri}: there is no folder {folder}")
        elif problem := writable(name, str(folder)):
            yield problem

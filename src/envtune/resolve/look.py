"""Settings -> Facts: what is here, looked at once."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from envtune.errors import Problem
from envtune.machine import hardware, rendezvous
from envtune.machine.hardware import Machine
from envtune.redaction import USERINFO
from envtune.resolve import accelerate_flags, facts, parallel
from envtune.resolve.config import Facts, Tracking
from envtune.settings import documents, paths
from envtune.settings.typed import Settings


def look(settings: Settings, environ: Mapping[str, str]) -> Facts:
    """The machine, the model, the data, the nodes and the folders that the settings name.

    Nothing of the Hub's: that is asked once everything here is well.
    """
    machine, outputs = _machine(settings, environ), paths.folders(settings.get, environ)
    wanted = settings.get("SFT_DEVICE")
    seen = Facts(
        machine=machine,
        model=facts.read_model(str(settings.axolotl["base_model"].value)),
        local=paths.everything_local(settings) or settings.get("SFT_LOCAL_FILES_ONLY"),
        data=facts.read_data(_items(settings, "datasets")),
        test_data=facts.read_data(_items(settings, "test_datasets")),
        device=("cuda" if machine.gpus else "cpu") if wanted == "auto" else wanted,
        tracking=_tracking(environ),
        outputs=outputs[0],
        logs=outputs[1],
        environ=environ,
    )
    return _spread(settings, seen)


def _machine(settings: Settings, environ: Mapping[str, str]) -> Machine:
    pretended = settings.get("SFT_PRETEND_GPU")
    return hardware.pretended(pretended) if pretended else hardware.probe(environ)


def _items(settings: Settings, key: str) -> list[Any]:
    """The data sets of a key that is not set, or is null, are none."""
    return (settings.axolotl[key].value if key in settings.axolotl else None) or []


def _tracking(environ: Mapping[str, str]) -> Tracking:
    return Tracking(
        wandb_key=bool(environ.get("WANDB_API_KEY")),
        wandb_mode=environ.get("WANDB_MODE", "").lower().replace("dryrun", "offline"),
        wandb_project=environ.get("WANDB_PROJECT", ""),
        mlflow_uri=USERINFO.sub("://", environ.get("MLFLOW_TRACKING_URI", "")),
        mlflow_experiment=environ.get("MLFLOW_EXPERIMENT_NAME", ""),
        tensorboard=environ.get("TENSORBOARD_LOGGING_DIR", ""),
    )


def _spread(settings: Settings, seen: Facts) -> Facts:
    """`seen` with the nodes, and how training spreads over them and their devices."""
    flags = accelerate_flags.given(settings)
    where, problems = rendezvous.read(seen.environ, flags)
    layout, file = seen.parallel, {}
    if not problems and (path := flags.get("config_file")):
        try:
            file = dict(documents.read_file(Path(path)).values)
        except documents.DocumentError as error:
            problems = [Problem(f"{rendezvous.FLAGS}: config_file", str(error))]
    if not problems:
        layout, problems = parallel.decide(settings, seen.machine, seen.device, where, file)
    return replace(seen, where=where, parallel=layout, problems=tuple(problems))

"""Settings -> Facts: what is here, looked at once."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from envtune.errors import Problem
from envtune.machine import hardware, rendezvous
from envtune.machine.hardware import Machine
from envtune.machine.pretended import pretend
from envtune.redaction import without_user
from envtune.resolve import accelerate_flags, facts, parallel
from envtune.resolve.config import Facts, Tracking
from envtune.settings import documents, paths
from envtune.settings.typed import Settings


def look(settings: Settings, environ: Mapping[str, str]) -> Facts:
    """The machine, the model, the data, the nodes and the folders that the settings name.

    Nothing of the Hub's: that is asked once everything here is well.
    """
    tracking, flags = _tracking(environ), accelerate_flags.given(settings)
    local = paths.everything_local(settings) or settings.get("SFT_LOCAL_FILES_ONLY")
    outputs, logs = paths.folders(settings.get, environ)
    caches = paths.caches(settings.get("SFT_CACHE_DIR"), environ)
    file, unread = documents.read_if_named(flags.get("config_file"))
    where, problems = rendezvous.read(environ, flags)
    machine = _machine(settings.get("SFT_PRETEND_GPU"), environ)
    seen = Facts(
        machine=machine,
        device=_device(settings.get("SFT_DEVICE"), machine),
        data=facts.read_data(_items(settings, "datasets")),
        test_data=facts.read_data(_items(settings, "test_datasets")),
        model=facts.read_model(str(settings.axolotl["base_model"].value)),
        tokenizer=facts.read_tokenizer(_tokenizer(settings)),
        local=local,
        tracking=tracking,
        where=where,
        outputs=outputs,
        logs=logs,
        environ={**environ, **caches},
    )
    if unread and not problems:
        problems = [Problem(f"{rendezvous.FLAGS}: config_file", unread)]
    if problems:
        return replace(seen, problems=tuple(problems))
    layout, problems = parallel.decide(settings, machine, seen.device, where, file)
    return replace(seen, parallel=layout, problems=tuple(problems))


def _tokenizer(settings: Settings) -> str:
    own = settings.axolotl.get("tokenizer_config")
    return str(own.value if own and own.value else settings.axolotl["base_model"].value)


def _machine(pretended: str | None, environ: Mapping[str, str]) -> Machine:
    return pretend(pretended) if pretended else hardware.probe(environ)


def _device(wanted: str, machine: Machine) -> str:
    return ("cuda" if machine.gpus else "cpu") if wanted == "auto" else wanted


def _tracking(environ: Mapping[str, str]) -> Tracking:
    return Tracking(
        wandb_key=bool(environ.get("WANDB_API_KEY")),
        wandb_mode=environ.get("WANDB_MODE", "").lower().replace("dryrun", "offline"),
        wandb_project=environ.get("WANDB_PROJECT", ""),
        mlflow_uri=without_user(environ.get("MLFLOW_TRACKING_URI", "")),
        mlflow_experiment=environ.get("MLFLOW_EXPERIMENT_NAME", ""),
        tensorboard=environ.get("TENSORBOARD_LOGGING_DIR", ""),
    )


def _items(settings: Settings, key: str) -> list[Any]:
    """The data sets of a key that is not set, or is null, are none."""
    return (settings.axolotl[key].value if key in settings.axolotl else None) or []

"""Facts -> Problem or None, one function a question. `check` prints all of them at once."""

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from envtune.checks import after_training, conflicts
from envtune.errors import Exit, Problem
from envtune.machine.hardware import Machine
from envtune.resolve import accelerate_flags, owned, parallel
from envtune.resolve import data as data_types
from envtune.resolve.config import Facts
from envtune.resolve.facts import DataFacts
from envtune.resolve.rules import passes_through
from envtune.settings.loading import Settings

# NCCL's own advice for several GPUs of one node, in bytes; Docker gives 64 MiB.
_SHM, _SHM_NEEDED = "/dev/shm", 2**30
_DATA_KEYS = ("datasets", "pretraining_dataset")


def before_facts(settings: Settings) -> list[Problem]:
    """What is wrong with the settings alone."""
    return [
        *_missing(settings),
        *owned.refusals(settings),
        *accelerate_flags.refusals(settings),
        *_conflicts(settings),
        *conflicts.problems(settings),
    ]


def preflight(settings: Settings, facts: Facts, folders: Mapping[str, str]) -> list[Problem]:
    """What is wrong with the settings on this machine, with this model and this data.

    `folders` maps the setting that moves a folder to the folder.
    """
    return [
        *_device(settings, facts),
        *_data(settings, facts),
        *conflicts.batch(settings, facts.parallel.world),
        *_trackers(settings, facts),
        *_deepspeed(facts),
        *after_training.problems(settings),
        *after_training.shared_memory(settings, facts.device, facts.machine.shm),
        *(p for name, folder in folders.items() if (p := writable(name, folder))),
    ]


# A tracker's keys, its package, and what to do where that is not installed.
_CLIENTS = (
    (("use_mlflow", "mlflow_experiment_name"), "mlflow", "pip install mlflow-skinny"),
    (("use_comet", "comet_project_name"), "comet_ml", "pip install comet-ml"),
    (("use_wandb", "wandb_project"), "wandb", "pip install wandb"),
    (("use_tensorboard",), "tensorboard", "pip install tensorboard"),
)


def _trackers(settings: Settings, facts: Facts) -> Iterator[Problem]:
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


def _missing(settings: Settings) -> Iterator[Problem]:
    if "base_model" not in settings.axolotl:
        yield Problem(
            "AXOLOTL_BASE_MODEL",
            "is not set; name a model of the Hub or a local folder, e.g. "
            "AXOLOTL_BASE_MODEL=NousResearch/Llama-3.2-1B",
        )
    if not any(settings.axolotl.get(key) and settings.axolotl[key].value for key in _DATA_KEYS):
        yield Problem(
            "AXOLOTL_DATASETS",
            "is not set; name what to train on, e.g. "
            'AXOLOTL_DATASETS=\'[{"path": "data.jsonl", "type": "alpaca"}]\'',
        )
    if passes_through(settings) and "learning_rate" not in settings.axolotl:
        yield Problem(
            "AXOLOTL_LEARNING_RATE",
            "is not set; RL and vision configurations are not tuned for you, e.g. "
            "AXOLOTL_LEARNING_RATE=5e-6",
        )


def _conflicts(settings: Settings) -> Iterator[Problem]:
    if {"FORCE_RUN_NAME", "FORCE_RUN_INDEX"} <= settings.own.keys():
        yield Problem("FORCE_RUN_INDEX", "is set and so is FORCE_RUN_NAME, which has its number")
    if "LEGACY_RUN_NAME" in settings.own and not settings.get("USE_LEGACY_NAMING"):
        yield Problem("LEGACY_RUN_NAME", "does nothing without USE_LEGACY_NAMING=1; set both")
    only = settings.axolotl.get("save_only_model")
    if only is not None and only.value:
        yield Problem(only.name, "makes checkpoints that cannot be resumed; unset it")


_UNPROVED = "a resumed run may see other batches than one never stopped"
_WARNED = {
    "sample_packing": f"Axolotl 0.19 packs anew after a resume: {_UNPROVED}",
    "streaming": _UNPROVED,
    "group_by_length": _UNPROVED,
    "curriculum_sampling": _UNPROVED,
}


def warnings(settings: Settings, facts: Facts) -> tuple[str, ...]:
    """What the user may do and should know."""
    set_on = {key: s.name for key, s in settings.axolotl.items() if s.value}
    told = [f"{set_on[key]}: {text}" for key, text in _WARNED.items() if key in set_on]
    strategy = settings.axolotl.get("save_strategy")
    if strategy is not None and strategy.value == "no":
        told.append(f"{strategy.name}: only SIGTERM saves; a killed run starts from nothing")
    if settings.get("SFT_PRETEND_GPU"):
        told.append(f"SFT_PRETEND_GPU: checked for {facts.machine}, whatever is here")
    told += _masks_nothing(settings, facts)
    if settings.get("SFT_RERUN"):
        told.append("SFT_RERUN: every start after a finished one trains again")
    return tuple(told)


def _masks_nothing(settings: Settings, facts: Facts) -> Iterator[str]:
    template, given = settings.axolotl.get("response_template"), settings.axolotl.get("datasets")
    if template is None or not template.value or given is None:
        return
    pairs = zip(given.value or (), facts.data, strict=True)
    if not any(data_types.is_masked(item, data) for item, data in pairs):
        yield f"{template.name}: masks nothing; the type of the data says what trains"


def _device(settings: Settings, facts: Facts) -> Iterator[Problem]:
    wanted, gpus = settings.get("SFT_DEVICE"), facts.machine.gpus
    if wanted == "cuda" and not gpus:
        yield Problem(
            "SFT_DEVICE", "is cuda and no GPU is visible; check --gpus all and the driver"
        )
    elif wanted == "auto" and facts.machine.flavor == "cuda" and not gpus:
        yield Problem(
            "SFT_DEVICE",
            "is not set and no GPU is visible in an image made for one; start it with "
            "--gpus all, or set SFT_DEVICE=cpu to train on the CPU",
        )
    if os.path.exists(_SHM) and (problem := writable(_SHM, _SHM)):
        yield problem  # a lock of the data's preparation lies there
    if facts.device == "cpu":
        yield from conflicts.on_cpu(settings)
    else:
        yield from _gpus(facts.machine)


def _gpus(machine: Machine) -> Iterator[Problem]:
    """What makes GPUs that are there useless."""
    driver, built_for = machine.driver, machine.built_for
    if driver and built_for and driver[0] < built_for[0]:  # minor versions fit each other
        known, needed = (".".join(map(str, version)) for version in (driver, built_for))
        yield Problem(
            "the GPU's driver",
            f"is too old: it knows CUDA {known} and torch here is built for CUDA {needed}; "
            f"take a host whose driver knows CUDA {built_for[0]}",
        )
    if len(machine.gpus) > 1 and machine.shm is not None and machine.shm < _SHM_NEEDED:
        yield Problem(
            _SHM,
            f"has {machine.shm // 2**20} MiB and {len(machine.gpus)} GPUs talk through it; start "
            "the container with --shm-size=8g, in Kubernetes with an emptyDir of medium Memory",
        )


def _deepspeed(facts: Facts) -> Iterator[Problem]:
    preset = facts.parallel.preset
    if preset in parallel.ZERO and importlib.util.find_spec("deepspeed") is None:
        yield Problem(
            parallel.PRESET, f"{preset} needs DeepSpeed, which is not installed; use fsdp2"
        )


def _data(settings: Settings, facts: Facts) -> Iterator[Problem]:
    if "datasets" not in settings.axolotl:
        return
    name = settings.axolotl["datasets"].name
    given = settings.axolotl["datasets"].value or []
    tells = passes_through(settings)  # RL's types follow from `rl`
    masked = "response_template" in settings.axolotl
    for index, (item, data) in enumerate(zip(given, facts.data, strict=True)):
        if data.problem:
            yield Problem(settings.axolotl["datasets"].at(index, "path"), data.problem, Exit.DATA)
        elif not (tells or data_types.is_typed(item, data, masked=masked)):
            yield Problem(f"{name}__{index}__TYPE", _untyped(data), Exit.DATA)


def _untyped(data: DataFacts) -> str:
    columns = ", ".join(data.columns[:8])
    seen = f"its columns ({columns}) do not tell it" if columns else "it cannot be told from here"
    return (
        f"is not set for {data.path} and {seen}; say how a row reads: alpaca, chat_template, "
        'completion, or {"field_instruction": "question", "field_output": "answer", '
        '"format": "{instruction}"}'
    )


def writable(name: str, folder: str) -> Problem | None:
    """A problem when nothing can be written under `folder` (it need not exist yet)."""
    path = Path(folder)
    if os.path.exists(path) and not os.path.isdir(path):
        return Problem(name, f"{path} is a file; the runs need a folder there")
    while not os.path.exists(path):  # False for a name that is too long, too
        path = path.parent
    if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK) and not _refuses(path):
        return None
    return Problem(
        name,
        f"{folder} cannot be written by uid {os.getuid()} ({path} forbids it); mount a "
        "writable volume there or name another folder",
    )


def _refuses(path: Path) -> bool:
    """Whether a file system takes no files although its permissions allow them (/proc)."""
    try:
        with tempfile.TemporaryFile(dir=path):
            return False
    except OSError:
        return True

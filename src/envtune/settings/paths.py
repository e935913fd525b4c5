"""Which settings name a local path, and where it is: a child works in the run's folder."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

from envtune.machine import hardware, volumes
from envtune.settings.spelling.nearest import nearest
from envtune.settings.typed import Settings

_DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow", ".txt", ".tsv", ".zst", ".gz")

# No path is longer; how many names of a folder are compared with one that is not there.
_PATH_LENGTH, _ENTRIES = 4096, 2000

# Settings that may hold a local path, and those that hold data sets.
PATHS = (
    "base_model", "base_model_config", "tokenizer_config", "processor_config", "lora_model_dir",
    "deepspeed", "chat_template_jinja", "resume_from_checkpoint", "output_dir",
)  # fmt: skip
FROM_THE_HUB = (
    "base_model", "base_model_config", "tokenizer_config", "processor_config", "lora_model_dir",
)  # fmt: skip
_ALWAYS_LOCAL = ("resume_from_checkpoint", "output_dir")
DATASETS = ("datasets", "test_datasets", "pretraining_dataset")
# Those of them whose files are fetched where they are remote; the third's rows are streamed.
FETCHED = ("datasets", "test_datasets")
_OWN_PATHS = (
    "SFT_CACHE_DIR", "SFT_EVAL_DATASET", "SFT_EVAL_PROMPTS", "SFT_EVAL_PAIRS",
    "SFT_EVAL_TASKS_PATH", "SFT_LLMCOMPRESSOR_VENV", "SFT_PREPARED_DIR", "SFT_VLLM_VENV",
)  # fmt: skip


def absolute(path: str) -> str:
    """A local path as the child sees it, whose working directory is the run folder."""
    return os.path.abspath(os.path.expanduser(path))


def folders(given: Callable[[str], str | None], environ: Mapping[str, str]) -> tuple[str, str]:
    """The absolute folders of the runs and of the logs; `given` tells what a setting says."""
    base = volumes.base(environ)
    outputs = given("SFT_OUTPUTS_DIR") or given("CKPT_ROOT") or f"{base}/outputs"
    logs = given("SFT_LOGS_DIR") or f"{base}/logs"
    return absolute(outputs), absolute(logs)


def caches(folder: str | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The Hub's caches under `folder`, laid out as under HF_HOME; none where HF_HOME says it. What
    Triton and Inductor compile lies beside them, and the Hub's kernels lie in its own.

    HF_HOME itself would hide a token that `hf auth login` has stored.
    """
    if not folder:
        return {}
    parts = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor"}
    if not environ.get("HF_HOME"):
        parts |= {"HF_HUB_CACHE": "hub", "HF_DATASETS_CACHE": "datasets", "HF_XET_CACHE": "xet"}
    return {name: f"{folder}/{part}" for name, part in parts.items() if not environ.get(name)}


def kept(folder: str | None, environ: Mapping[str, str], outputs: str) -> str:
    """Where envtune keeps what another run may use, beside the Hub's caches. `outputs` has the
    place of a home that cannot be written."""
    home = environ["HOME"] if hardware.home_is_usable(environ) else f"{outputs}/.home"
    base = environ.get("HF_HOME") or folder or environ.get("XDG_CACHE_HOME") or f"{home}/.cache"
    return f"{absolute(base)}/envtune"


def is_here(path: str) -> bool:
    """Whether something lies at a path, seen from where the command was started."""
    return os.path.exists(path)


def is_local(path: str) -> bool:
    """Whether a name means a file or folder here and not a repository of the Hub."""
    return (
        path.startswith(("/", "./", "../", "~"))
        or path.endswith(_DATA_SUFFIXES)
        or path.count("/") > 1
        or os.path.exists(path)
    ) and "://" not in path


def located(settings: Settings) -> Settings:
    """`settings` with each local path absolute: the child works in the run folder."""
    root = settings.get("DATA_ROOT") or ""
    changed = dict(settings.axolotl)
    for key in PATHS:
        if key in changed and isinstance(value := changed[key].value, str):
            local = key in _ALWAYS_LOCAL or ("\n" not in value and is_local(value))
            changed[key] = replace(changed[key], value=absolute(value) if local else value)
    for key in DATASETS:
        if key in changed and isinstance(changed[key].value, list):
            items = [_located(item, root) for item in changed[key].value]
            changed[key] = replace(changed[key], value=items)
    own = dict(settings.own)
    for name in _OWN_PATHS:
        if (named := own.get(name)) and isinstance(named.value, str):
            own[name] = replace(named, value=absolute(named.value))
    return replace(settings, axolotl=changed, own=own)


def _located(dataset: Any, root: str) -> Any:
    if not isinstance(dataset, Mapping):
        return dataset
    changed = dict(dataset)
    if isinstance(path := dataset.get("path"), str):
        under = os.path.join(absolute(root), path) if root else ""
        if under and not os.path.exists(path) and os.path.exists(under):
            changed["path"] = under
        elif is_local(path):
            changed["path"] = absolute(path)
    files = dataset.get("data_files")
    folder = str(changed.get("path", ""))
    if isinstance(files, str):
        changed["data_files"] = _here(files, folder)
    elif isinstance(files, list):
        changed["data_files"] = [_here(file, folder) for file in files]
    return changed


def _here(file: str, folder: str) -> str:
    """A file beside a local folder: seen from here, or from there as the datasets library does."""
    within = os.path.join(folder, file)
    if folder.startswith("/") and not os.path.exists(file) and os.path.exists(within):
        return within
    return absolute(file) if os.path.exists(file) else file


def everything_local(settings: Settings) -> bool:
    """Whether no model, tokenizer or data set has to come from the Hub."""
    values = [settings.axolotl[key].value for key in FROM_THE_HUB if key in settings.axolotl]
    for key in DATASETS:
        given = settings.axolotl[key].value if key in settings.axolotl else None
        values += [item.get("path") for item in given or () if isinstance(item, Mapping)]
        values += [given] if isinstance(given, str) else []
    return all(value.startswith("/") for value in values if isinstance(value, str))


def near_file(path: str) -> str:
    """What is there instead of a local `path` that is not: `; there is data/train.jsonl`, or
    nothing. One part of it may be misspelled, a folder or the file; what is there and no file, as
    a pipe or a link to itself, is nothing else's misspelling."""
    found = _near_path(os.path.abspath(path)) if path and not os.path.lexists(path) else None
    return (
        f"; there is {os.path.relpath(found) if not path.startswith('/') else found}"
        if found
        else ""
    )


def _near_path(path: str) -> str | None:
    folder, name = os.path.split(path)
    if not name or len(path) > _PATH_LENGTH:
        return None
    if not os.path.isdir(folder):
        other = _near_path(folder)
        return other and (_near_path(f"{other}/{name}") or None)
    if os.path.exists(path):
        return path
    try:
        names = {entry.name.lower(): entry.name for entry in islice(os.scandir(folder), _ENTRIES)}
    except OSError:
        return None
    hint = names.get(nearest(name.lower(), names) or "")
    return f"{folder}/{hint}" if hint else None

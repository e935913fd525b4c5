"""What the run is given: the model's config.json and a sample of each data file.

Reads little, so that the fast check stays fast. Data that is local but unusable is a fact
too (`problem`): the checks turn it into a line for the user.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from envtune.artifacts import modelfiles
from envtune.machine import runpod
from envtune.settings.loading import Settings

_DATA_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow", ".txt", ".tsv", ".zst", ".gz")
# ds_type as Axolotl names it; JSON lines are "json" too.
_DATA_TYPES = {
    ".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet",
    ".arrow": "arrow", ".txt": "text",
}  # fmt: skip
_LINE_LIMIT = 1 << 20

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
_OWN_PATHS = (
    "SFT_CACHE_DIR", "SFT_EVAL_DATASET", "SFT_EVAL_PROMPTS", "SFT_EVAL_PAIRS",
    "SFT_EVAL_TASKS_PATH", "SFT_LLMCOMPRESSOR_VENV", "SFT_VLLM_VENV",
)  # fmt: skip


@dataclass(frozen=True)
class ModelFacts:
    """The base model. `config` is its config.json, empty where it could not be read."""

    path: str
    local: bool
    config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def context(self) -> int | None:
        """The longest sequence in tokens that the model was made for."""
        value = self.config.get("max_position_embeddings")
        return value if isinstance(value, int) else None


@dataclass(frozen=True)
class DataFacts:
    """One data set. `columns` of its first row; `ds_type` as Axolotl names it."""

    path: str
    local: bool
    columns: tuple[str, ...] = ()
    ds_type: str | None = None
    problem: str = ""


def absolute(path: str) -> str:
    """A local path as the child sees it, whose working directory is the run folder."""
    return os.path.abspath(os.path.expanduser(path))


def folders(given: Callable[[str], str | None], environ: Mapping[str, str]) -> tuple[str, str]:
    """The absolute folders of the runs and of the logs; `given` tells what a setting says."""
    base = runpod.VOLUME if runpod.id_of(environ) else "."
    outputs = given("SFT_OUTPUTS_DIR") or given("CKPT_ROOT") or f"{base}/outputs"
    logs = given("SFT_LOGS_DIR") or f"{base}/logs"
    return absolute(outputs), absolute(logs)


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
    if isinstance(files, str):
        changed["data_files"] = _here(files)
    elif isinstance(files, list):
        changed["data_files"] = [_here(file) for file in files]
    return changed


def _here(file: str) -> str:
    return absolute(file) if os.path.exists(file) else file


def everything_local(settings: Settings) -> bool:
    """Whether no model, tokenizer or data set has to come from the Hub."""
    values = [settings.axolotl[key].value for key in FROM_THE_HUB if key in settings.axolotl]
    for key in DATASETS:
        given = settings.axolotl[key].value if key in settings.axolotl else None
        values += [item.get("path") for item in given or () if isinstance(item, Mapping)]
        values += [given] if isinstance(given, str) else []
    return all(value.startswith("/") for value in values if isinstance(value, str))


def read_model(path: str) -> ModelFacts:
    """The model's facts. What is wrong with its files is for `access` to tell."""
    if not is_local(path):
        return ModelFacts(path, local=False)
    try:
        config = modelfiles.read_json(Path(absolute(path)) / "config.json")
    except (OSError, ValueError):
        return ModelFacts(path, local=True)
    return ModelFacts(path, True, config)


def read_data(datasets: Sequence[Mapping[str, Any]]) -> tuple[DataFacts, ...]:
    """The facts of each data set in order."""
    return tuple(_read_one(dataset) for dataset in datasets)


def _read_one(dataset: Mapping[str, Any]) -> DataFacts:
    path = str(dataset.get("path", ""))
    if not is_local(path):
        return DataFacts(path, local=False)
    target = Path(absolute(path))
    if os.path.isdir(target):
        empty = not any(target.iterdir())
        return DataFacts(path, True, problem=f"{target} is an empty folder" if empty else "")
    kind = _DATA_TYPES.get(target.suffix)
    try:
        with target.open("rb") as stream:
            return _sample(path, target, stream.read(_LINE_LIMIT), kind)
    except FileNotFoundError:
        return DataFacts(path, True, problem=f"{target} is not there")
    except OSError as error:
        return DataFacts(path, True, problem=f"{target} cannot be read: {error.strerror}")


def _sample(path: str, target: Path, head: bytes, kind: str | None) -> DataFacts:
    if not head.strip():
        return DataFacts(path, True, ds_type=kind, problem=f"{target} is empty")
    try:
        columns = _columns(head) if kind == "json" else ()
    except ValueError as error:
        if len(head) == _LINE_LIMIT:  # one row longer than the sample
            return DataFacts(path, True, ds_type=kind)
        return DataFacts(path, True, ds_type=kind, problem=f"{target}:1: {error}")
    return DataFacts(path, True, columns, kind)


def _columns(head: bytes) -> tuple[str, ...]:
    """The names in the first object of JSON lines or of a JSON list. Raises ValueError."""
    try:
        whole = head if len(head) < _LINE_LIMIT else head[: head.rfind(b"\n") + 1]
        text = whole.decode().lstrip("[ \t\r\n")
        row, _ = json.JSONDecoder().raw_decode(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004  # the data's type, not the code's
    return tuple(row)

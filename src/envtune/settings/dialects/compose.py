"""The compose pipeline's config.yaml: sections paths, preprocess, train, export and so on.

Names are `section.name`. What belongs to a stage that envtune does not run is taken and
said aloud, so that the file works unchanged.
"""

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from envtune.settings.dialects.rules import (
    ANY,
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    Becomes,
    Implied,
    Noted,
    Others,
    Outcome,
    Refused,
    Table,
    prefixed,
)

_QUANTISED = Noted("convert-awq in orchestration.post_finetune quantises, or SFT_QUANTISE=w4a16")
_RESUMED = Noted("a stage works on its own run; `envtune <stage> RUN` names another")
# A stage of the chain, and the setting that turns it on.
_CHAIN: Mapping[str, Mapping[str, Any]] = {
    "export-merged": {"SFT_MERGE": True},
    "convert-awq": {"SFT_QUANTISE": "w4a16"},
    "eval-sft": {"SFT_EVALUATE": True},
    "serve-vllm": {"SFT_SERVE": True},
}
_STAGES = {"type": "array", "items": {"enum": list(_CHAIN)}}


def _sample(value: Any, others: Others) -> Mapping[str, Any] | Refused:
    """A number of rows; `full` is all of them."""
    if isinstance(value, int) and value > 0:
        return {"SFT_SAMPLE_SIZE": value}
    if str(value).lower() in ("full", "none", "null", ""):
        return {}
    return Refused(f"{value!r} is neither a number of rows nor full")


def _cutoff(value: int, others: Others) -> Mapping[str, Any] | Noted:
    if others.get("train.cutoff_len") is not None:
        return Noted("train.cutoff_len counts")
    return {"sequence_len": value}


def _least_rate(value: float, others: Others) -> Outcome:
    """transformers' own curve takes the last rate, Axolotl's its share of the first."""
    curve = others.get("train.lr_scheduler", "cosine")
    if curve == "cosine_with_min_lr":
        return {"lr_scheduler_kwargs": {"min_lr": value}}
    if curve != "cosine":
        return Refused("only the cosine schedules end at a smallest rate")
    first = others.get("train.learning_rate")
    if not isinstance(first, int | float) or not 0 <= value < first:
        return Refused("has to be smaller than train.learning_rate")
    return {"cosine_min_lr_ratio": value / first}


def _half(on: bool, others: Others) -> Mapping[str, Any] | Noted:
    """The pipeline's own file sets both formats; bf16 is the one that it prefers."""
    if on and others.get("train.bf16") is True:
        return Noted("train.bf16 is true too and is used alone: one format at a time")
    return {"fp16": on}


def _resume(value: str, others: Others) -> Mapping[str, Any]:
    """An unfinished run always goes on, which is what `latest` asks for."""
    return {} if value == "latest" else {"resume_from_checkpoint": value}


# Written in three places there, and one object here.
_GENERATION = {"max_new_tokens": COUNT, "temperature": NUMBER, "top_p": NUMBER}


def _generation(name: str, value: Any, others: Others) -> Mapping[str, Any]:
    """All of them at once, by the first that is there."""
    found = {one: others.get(f"eval.{one}") for one in _GENERATION}
    given = {one: value for one, value in found.items() if value is not None}
    return {"SFT_EVAL_GENERATION": given} if name == next(iter(given)) else {}


def _console(value: str, others: Others) -> Mapping[str, Any]:
    on = others.get("logging.debug_pipeline") is True
    return {} if on else {"SFT_LOG_LEVEL": value.upper()}


def _cache(value: str, others: Others) -> Mapping[str, Any] | Noted:
    if "${" in value or "\\" in value:
        return Noted(f"{value} is no folder here; HF_HOME says where the cache is")
    return {"SFT_CACHE_DIR": value}


def _chain(stages: list[str], others: Others) -> Mapping[str, Any]:
    """The stages run in their own order, whatever order they are named in."""
    if others.get("awq.enabled") is False:
        stages = [stage for stage in stages if stage != "convert-awq"]
    return {name: value for stage in stages for name, value in _CHAIN[stage].items()}


def _served_name(value: str, others: Others) -> Mapping[str, Any] | Noted:
    if others.get("serve.model_name"):
        return Noted("serve.model_name counts")
    return {"SFT_SERVE_SERVED_MODEL_NAME": [value]}


PATHS: Table = {
    "data_root": "DATA_ROOT",
    "prepared_dir": Noted("prepared rows lie in the run's data/"),
    "outputs_dir": "SFT_OUTPUTS_DIR",
    "logs_dir": "SFT_LOGS_DIR",
    "huggingface_cache": Becomes(TEXT, _cache),
    "models_mount": Noted("a model is named by its path"),
    "run_metadata_file": Noted("latest.txt under the outputs and the logs names the newest run"),
}

PREPROCESS: Table = {
    "dataset_name": "datasets.0.path",
    "sample_size": Becomes(ANY, _sample),
    "filter_langs": Noted("rows are not filtered by language; every row trains"),
    "test_size": "val_set_size",
    "cutoff_len": Becomes({"type": "integer"}, _cutoff),
    "seed": "seed",
    "save_splits": Noted("prepared rows lie in the run's data/"),
    "max_workers": "dataset_num_proc",
    "pack_sequences": "sample_packing",
}

TRAIN: Table = {
    "base_model": "base_model",
    "cutoff_len": "sequence_len",
    "batch_size": "micro_batch_size",
    "gradient_accumulation": "gradient_accumulation_steps",
    "epochs": "num_epochs",
    "learning_rate": "learning_rate",
    "min_learning_rate": Becomes(NUMBER, _least_rate),
    "weight_decay": "weight_decay",
    "warmup_ratio": "warmup_ratio",
    "lr_scheduler": "lr_scheduler",
    "lora_r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "lora_target_modules",
    "gradient_checkpointing": "gradient_checkpointing",
    "bf16": "bf16",
    "fp16": Becomes(FLAG, _half),
    "logging_steps": "logging_steps",
    "eval_steps": "eval_steps",
    "max_steps": "max_steps",
    "resume_from": Becomes(TEXT, _resume),
}

LOGGING: Table = {
    "console_level": Becomes(TEXT, _console),
    "file_level": Noted("the log file holds every line"),
    "tqdm_refresh_rate": Noted("a bar is drawn twice a second at most"),
    "debug_pipeline": Becomes(FLAG, lambda on, others: {"SFT_LOG_LEVEL": "DEBUG"} if on else {}),
}

NAMING: Table = {
    "counter_scope": "SFT_RUN_COUNTER_SCOPE",
    "force_run_name": "FORCE_RUN_NAME",
    "force_run_index": "FORCE_RUN_INDEX",
}

EXPORT: Table = {
    "include_adapter_weights": Noted("the adapter is always kept, in adapter/"),
    "resume_from": _RESUMED,
}

SERVE: Table = {
    "host": "SFT_SERVE_HOST",
    "port": "SFT_SERVE_PORT",
    "max_model_len": "SFT_SERVE_MAX_MODEL_LEN",
    "served_model_name": Becomes(TEXT, _served_name),
    "model_name": Becomes(TEXT, lambda name, others: {"SFT_SERVE_SERVED_MODEL_NAME": [name]}),
    "prefer_awq": "SFT_PREFER_AWQ",
    "served_model_relpath": "SFT_SERVED_MODEL_RELPATH",
    "resume_from": _RESUMED,
}

AWQ: Table = {
    "enabled": _QUANTISED,
    "gpu_enabled": Noted("a GPU quantises where one trains"),
    "method": Refused("4-bit weights are made by awq; see SFT_QUANTISE", unless=("awq",)),
    "scheme": Noted("4-bit weights are W4A16_ASYM"),
    "num_calibration_samples": "SFT_CALIBRATION_SAMPLES",
    "output_suffix": Noted("the quantised model lies in merged_awq"),
}

EVAL: Table = {
    **{name: Becomes(node, partial(_generation, name)) for name, node in _GENERATION.items()},
    "prompts": "SFT_EVAL_PROMPTS",
    "cutoff_len": Noted("a prompt is not cut"),
    "resume_from": _RESUMED,
}

TABLE: Table = {
    **prefixed("paths", PATHS),
    **prefixed("preprocess", PREPROCESS),
    **prefixed("train", TRAIN),
    **prefixed("logging", LOGGING),
    **prefixed("naming", NAMING),
    **prefixed("export", EXPORT),
    **prefixed("serve", SERVE),
    "orchestration.post_finetune": Becomes(_STAGES, _chain),
    **prefixed("awq", AWQ),
    **prefixed("eval", EVAL),
}


def implied(others: Others) -> Implied:
    """Its data sets have the columns of Alpaca; those of the Hub cannot be looked into here."""
    name = str(others.get("preprocess.dataset_name", ""))
    if not re.fullmatch(r"[\w-]+/[\w.-]+", name) or name.endswith((".json", ".jsonl", ".csv")):
        return {}
    return {"a data set of the Hub, which reads as alpaca": ("datasets.0.type", "alpaca")}

"""The compose pipeline's config.yaml: sections paths, preprocess, train, export and so on.

Names are `section.name`. What belongs to a stage that envtune does not run is taken and
said aloud, so that the file works unchanged.
"""

import re
from functools import partial

from envtune.settings.dialects import compose_values as values
from envtune.settings.dialects.rules import (
    ANY,
    FLAG,
    NUMBER,
    TEXT,
    TEXTS,
    Becomes,
    Defaults,
    Noted,
    Others,
    Refused,
    Table,
    prefixed,
)
from envtune.settings.dialects.trainer_values import report_to

_QUANTISED = Noted("convert-awq in orchestration.post_finetune quantises, or SFT_QUANTISE=w4a16")
_RESUMED = Noted("a stage works on its own run; `envtune <stage> RUN` names another")
_STAGES = {"type": "array", "items": {"enum": list(values.CHAIN)}}

PATHS: Table = {
    "data_root": "DATA_ROOT",
    "prepared_dir": "SFT_PREPARED_DIR",
    "outputs_dir": "SFT_OUTPUTS_DIR",
    "logs_dir": "SFT_LOGS_DIR",
    "huggingface_cache": Becomes(TEXT, values.cache),
    "models_mount": Noted("a model is named by its path"),
    "run_metadata_file": Noted("latest.txt under the outputs and the logs names the newest run"),
}

# Its classifier of diagnoses is a task of its own; its training of texts knows none of these.
_CLASSIFIER = Noted("only the pipeline's classifier reads it")

PREPROCESS: Table = {
    "mode": Refused("only data sets of instructions are read", unless=("huggingface",)),
    "dataset_name": "datasets.0.path",
    "sample_size": Becomes(ANY, values.sample),
    "filter_langs": Becomes(TEXTS, values.languages),
    "test_size": "val_set_size",
    "cutoff_len": Becomes({"type": "integer"}, values.cutoff),
    "seed": "seed",
    "save_splits": "SFT_SAVE_SPLITS",
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
    "min_learning_rate": Becomes(NUMBER, values.least_rate),
    "weight_decay": "weight_decay",
    "warmup_ratio": "warmup_ratio",
    "lr_scheduler": "lr_scheduler",
    "lora_r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target_modules": "lora_target_modules",
    "gradient_checkpointing": "gradient_checkpointing",
    "bf16": "bf16",
    "fp16": Becomes(FLAG, values.half),
    "logging_steps": "logging_steps",
    "eval_steps": "eval_steps",
    "max_steps": "max_steps",
    "resume_from": Becomes(TEXT, values.resume),
    "eval_batch_size": "eval_batch_size",
    "load_in_4bit": Becomes(FLAG, values.four_bits),
    "report_to": Becomes(TEXTS, report_to),
    "logging_dir": Noted("TensorBoard's events lie in the run's folder"),
    **dict.fromkeys(
        ("loss_type", "focal_gamma", "label_smoothing", "use_oversampling", "abstain_tau",
         "metric_for_best_model", "greater_is_better", "class_weighting"), _CLASSIFIER,
    ),
}  # fmt: skip

LOGGING: Table = {
    "console_level": Becomes(TEXT, values.console),
    "file_level": Noted("the log file holds every line"),
    "tqdm_refresh_rate": Noted("a bar is drawn twice a second at most"),
    "debug_pipeline": Becomes(FLAG, lambda on, others: {"SFT_LOG_LEVEL": "DEBUG"} if on else {}),
}

_NAMED = Noted("a run is <model>-<dataset>-<size>-run<N>; FORCE_RUN_NAME names it otherwise")
NAMING: Table = {
    "counter_scope": "SFT_RUN_COUNTER_SCOPE",
    "run_counter_scope": "SFT_RUN_COUNTER_SCOPE",
    "use_legacy": "USE_LEGACY_NAMING",
    "legacy_allowed": Noted("USE_LEGACY_NAMING=1 asks for the old names"),
    "normalize": _NAMED,
    "separator": _NAMED,
    "run_prefix": Refused("set FORCE_RUN_NAME, a run's whole name", unless=("",)),
    "max_segment_length": _NAMED,
    "max_name_length": _NAMED,
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
    "served_model_name": Becomes(TEXT, values.served_name),
    "model_name": Becomes(TEXT, lambda name, others: {"SFT_SERVE_SERVED_MODEL_NAME": [name]}),
    "prefer_awq": "SFT_PREFER_AWQ",
    "served_model_relpath": Becomes(TEXT, values.served_path),
    "resume_from": _RESUMED,
}

AWQ: Table = {
    "enabled": _QUANTISED,
    "gpu_enabled": Noted("a GPU quantises where one trains"),
    "method": Refused("4-bit weights are made by awq; see SFT_QUANTISE", unless=("awq",)),
    "scheme": Noted("4-bit weights are W4A16_ASYM"),
    "num_calibration_samples": "SFT_CALIBRATION_SAMPLES",
    "max_seq_length": "SFT_CALIBRATION_SEQUENCE_LEN",
    "calib_text_file": Noted("the prepared rows of the run calibrate"),
    "extra_args": Refused("SFT_QUANTISE has its own settings", unless=([],)),
    "use_smoothquant": Noted("AWQ scales the weights by itself"),
    "smoothquant_strength": Noted("AWQ scales the weights by itself"),
    "output_suffix": Noted("the quantised model lies in merged_awq"),
}

EVAL: Table = {
    **{
        name: Becomes(node, partial(values.generation, name))
        for name, node in values.GENERATION.items()
    },
    "prompts": "SFT_EVAL_PROMPTS",
    "cutoff_len": Noted("a prompt is not cut"),
    "resume_from": _RESUMED,
}

# What its loader adds.
USUAL: Defaults = {
    "preprocess.sample_size": 1000, "preprocess.test_size": 0.1, "preprocess.pack_sequences": True,
    "train.cutoff_len": 2048, "train.batch_size": 1, "train.gradient_accumulation": 1,
    "train.epochs": 1, "train.learning_rate": 2e-5, "train.lr_scheduler": "linear",
    "train.warmup_ratio": 0, "train.lora_r": 8, "train.lora_alpha": 16,
    "train.lora_dropout": 0.05, "train.lora_target_modules": ["q_proj", "v_proj"],
}  # fmt: skip

TABLE: Table = {
    **prefixed("paths", PATHS),
    **prefixed("preprocess", PREPROCESS),
    **prefixed("train", TRAIN),
    **prefixed("logging", LOGGING),
    **prefixed("naming", NAMING),
    **prefixed("export", EXPORT),
    **prefixed("serve", SERVE),
    "orchestration.post_finetune": Becomes(_STAGES, values.chain),
    **prefixed("awq", AWQ),
    **prefixed("llm_compressor", AWQ),
    **prefixed("eval", EVAL),
}


def defaults(others: Others) -> Defaults:
    """Its own where its file is silent; a data set of its has the columns of Alpaca, and those
    of the Hub cannot be looked into here."""
    name = str(others.get("preprocess.dataset_name", ""))
    hub = re.fullmatch(r"[\w-]+/[\w.-]+", name) and not name.endswith((".json", ".jsonl", ".csv"))
    usual = USUAL if "train.base_model" in others else {}
    return {**usual, **({"datasets.0.type": "alpaca"} if hub else {})}

"""The compose pipeline: config.yaml and its debug profile, by the variable of every file."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from envtune.settings import given, sources
from tests.harness import Result
from tests.replay.conftest import Configure, differing

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

# config.yaml as its repository has it.
CONFIG: dict[str, Any] = {
    "paths": {
        "data_root": "data", "prepared_dir": "prepared", "outputs_dir": "outputs",
        "logs_dir": "logs", "huggingface_cache": "${USERPROFILE}\\.cache\\huggingface",
        "models_mount": "..\\outputs", "run_metadata_file": "logs/latest.txt",
    },
    "preprocess": {
        "dataset_name": "tatsu-lab/alpaca", "sample_size": "full", "filter_langs": ["en"],
        "test_size": 0.2, "cutoff_len": 2048, "seed": 215, "save_splits": True,
        "max_workers": 4, "pack_sequences": True,
    },
    "train": {
        "base_model": "Qwen/Qwen2-7B", "cutoff_len": 2048, "batch_size": 4,
        "gradient_accumulation": 8, "epochs": 3, "learning_rate": 0.00002,
        "min_learning_rate": 0.000005, "weight_decay": 0.01, "warmup_ratio": 0.03,
        "lr_scheduler": "cosine", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05,
        "lora_target_modules": TARGETS, "gradient_checkpointing": True, "bf16": True,
        "fp16": True, "logging_steps": 20, "eval_steps": 100, "max_steps": None,
        "resume_from": None,
    },
    "export": {"include_adapter_weights": True, "resume_from": None},
    "eval": {
        "cutoff_len": 2048, "max_new_tokens": 512, "temperature": 0.7, "top_p": 0.9,
        "prompts": [{"instruction": "Tell of Swiss history.", "language": "en",
                     "max_sentences": 3}],
        "resume_from": None,
    },
    "serve": {
        "host": "0.0.0.0", "port": 8080, "max_model_len": 2048,
        "served_model_name": "Qwen2-7B-SFT", "served_model_relpath": "some_run/merged",
        "resume_from": None,
    },
    "logging": {
        "console_level": "INFO", "file_level": "DEBUG", "tqdm_refresh_rate": 1.0,
        "debug_pipeline": False,
    },
    "awq": {"enabled": True, "gpu_enabled": True, "method": "awq", "scheme": "symmetric",
            "num_calibration_samples": None, "calib_text_file": None, "extra_args": [],
            "use_smoothquant": True, "smoothquant_strength": 0.8, "max_seq_length": None,
            "output_suffix": "awq"},
}  # fmt: skip

# debug_config.yaml, where it differs.
DEBUG: dict[str, Any] = CONFIG | {
    "preprocess": CONFIG["preprocess"] | {"sample_size": 32, "cutoff_len": 1024, "max_workers": 2,
                                          "pack_sequences": False},
    "train": CONFIG["train"] | {
        "base_model": "Qwen/Qwen2.5-0.5B", "cutoff_len": 512, "batch_size": 1,
        "gradient_accumulation": 1, "epochs": 1, "lora_r": 4, "lora_alpha": 16, "bf16": False,
        "fp16": False, "logging_steps": 1, "eval_steps": 5, "max_steps": 10,
    },
    "eval": CONFIG["eval"] | {"cutoff_len": 512, "max_new_tokens": 64},
    "serve": CONFIG["serve"] | {"max_model_len": 512, "served_model_name": "Qwen2.5-0.5B-DEBUG",
                                "served_model_relpath": "none"},
    "logging": CONFIG["logging"] | {"tqdm_refresh_rate": 0.5, "debug_pipeline": True},
    "awq": CONFIG["awq"] | {"gpu_enabled": False},
}  # fmt: skip

# Its third file, which has a section for names and one for the stages.
NAMED: dict[str, Any] = DEBUG | {
    "preprocess": DEBUG["preprocess"] | {"mode": "huggingface", "sample_size": 128},
    "train": DEBUG["train"] | {
        "report_to": ["tensorboard"], "logging_dir": None, "eval_batch_size": 1,
        "loss_type": "weighted_ce", "focal_gamma": 2.0, "label_smoothing": 0.05,
        "use_oversampling": False, "metric_for_best_model": "macro_f1",
        "greater_is_better": True, "abstain_tau": None, "load_in_4bit": False,
    },
    "serve": DEBUG["serve"] | {"prefer_awq": False, "served_model_relpath": None,
                               "model_name": None},
    "naming": {"normalize": True, "separator": "-", "run_counter_scope": "model_dataset",
               "run_prefix": "", "legacy_allowed": True, "max_segment_length": 64,
               "max_name_length": 128, "use_legacy": False},
    "awq": DEBUG["awq"] | {"enabled": False, "scheme": "W4A16_ASYM",
                           "num_calibration_samples": 32, "max_seq_length": 1024,
                           "calib_text_file": "prepared/awq_calibration.txt"},
    "orchestration": {"post_finetune": ["export-merged", "eval-sft"]},
}  # fmt: skip

ASKED = {
    "base_model": "Qwen/Qwen2-7B",
    "datasets": [{"path": "tatsu-lab/alpaca", "type": "alpaca"}],
    "sequence_len": 2048,
    "micro_batch_size": 4,
    "gradient_accumulation_steps": 8,
    "num_epochs": 3,
    "learning_rate": 0.00002,
    "cosine_min_lr_ratio": 0.25,
    "weight_decay": 0.01,
    "warmup_ratio": 0.03,
    "lr_scheduler": "cosine",
    "adapter": "lora",
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_dropout": 0.05,
    "lora_target_modules": TARGETS,
    "gradient_checkpointing": True,
    "bf16": True,
    "fp16": False,
    "logging_steps": 20,
    "eval_steps": 100,
    "val_set_size": 0.2,
    "seed": 215,
    "dataset_num_proc": 4,
    "sample_packing": True,
}

# Where it cannot be obeyed, and what the user reads instead.
TOLD = [
    "paths.huggingface_cache: ${USERPROFILE}\\.cache\\huggingface is no folder here; HF_HOME says "
    "where the cache is",
    "preprocess.cutoff_len: train.cutoff_len counts",
    "train.fp16: train.bf16 is true too and is used alone: one format at a time",
    "export.include_adapter_weights: the adapter is always kept, in adapter/",
    "eval.cutoff_len: a prompt is not cut",
    "awq.scheme: 4-bit weights are W4A16_ASYM",
    "awq.gpu_enabled: a GPU quantises where one trains",
    "awq.use_smoothquant: AWQ scales the weights by itself",
    "awq.enabled: convert-awq in orchestration.post_finetune quantises, or SFT_QUANTISE=w4a16",
]


def _lines(result: Result) -> list[str]:
    label = "SFT_TRAINER_CONFIG_JSON_PATH: "
    return [line.split(label)[-1] for line in result.err.splitlines() if label in line]


def _write(folder: Path, config: dict[str, Any]) -> str:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return str(path)


def test_its_config(configure: Configure, tmp_path: Path) -> None:
    result, found = configure(SFT_TRAINER_CONFIG_JSON_PATH=_write(tmp_path, CONFIG))
    assert result.code == 0, result.err
    assert not differing(found, ASKED)
    assert [line for line in TOLD if line not in _lines(result)] == []


def test_its_preprocess_is_obeyed(tmp_path: Path) -> None:
    environ = {"SFT_TRAINER_CONFIG_JSON_PATH": _write(tmp_path, CONFIG)}
    found = given.settings(sources.with_documents(sources.read(environ=environ)))
    assert found.get("SFT_LANGUAGES") == ["en"]
    assert found.get("SFT_SAVE_SPLITS") is True
    assert str(found.get("SFT_PREPARED_DIR")).endswith("/prepared")


def test_its_debug_profile(configure: Configure, tmp_path: Path) -> None:
    path = _write(tmp_path, DEBUG)
    for device in ({}, {"SFT_PRETEND_GPU": "", "SFT_DEVICE": "cpu", "AXOLOTL_BF16": "false"}):
        result, found = configure(SFT_TRAINER_CONFIG_JSON_PATH=path, **device)
        assert result.code == 0, result.err
        assert not differing(
            found,
            {
                "base_model": "Qwen/Qwen2.5-0.5B", "sequence_len": 512, "micro_batch_size": 1,
                "gradient_accumulation_steps": 1, "num_epochs": 1, "max_steps": 10,
                "lora_r": 4, "lora_alpha": 16, "bf16": False, "fp16": False, "eval_steps": 5,
                "datasets": [{"path": "tatsu-lab/alpaca", "type": "alpaca"}],
            },
        )  # fmt: skip


def test_a_variable_takes_the_place_of_a_line(configure: Configure, tmp_path: Path) -> None:
    path = _write(tmp_path, CONFIG)
    result, found = configure(SFT_TRAINER_CONFIG_JSON_PATH=path, AXOLOTL_LORA_R="64")
    assert found["lora_r"] == 64
    told = "AXOLOTL_LORA_R takes the place of SFT_TRAINER_CONFIG_JSON_PATH: train.lora_r"
    assert told in result.err


def test_a_line_that_it_never_had_is_refused(configure: Configure, tmp_path: Path) -> None:
    config = deepcopy(CONFIG)
    config["train"]["batchsize"] = 4
    result, _ = configure(SFT_TRAINER_CONFIG_JSON_PATH=_write(tmp_path, config))
    assert result.code == 1
    assert "train.batchsize: no such setting; did you mean train.batch_size?" in result.err

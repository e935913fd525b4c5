"""The industrial pipeline: one JSON for the data, one for the training, // comments and all."""

import json
from pathlib import Path
from typing import Any

from envtune.settings import given, sources
from tests.replay.conftest import Configure, differing

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

DATA: dict[str, Any] = {
    "name": "alpaca_chatml",
    "description": "Alpaca in ChatML",
    "template": "chatml",
    "output_params": {"sequence_length": 1024, "shard_size": 1000, "train_ratio": 0.95},
    "quality_filters": {
        "min_prompt_length": 10, "max_prompt_length": 2000, "min_response_length": 10,
        "max_response_length": 2000, "filter_urls": True, "filter_code_blocks": False,
    },
    "datasets": [
        {
            "name": "alpaca_gpt4", "type": "huggingface", "dataset_name": "tatsu-lab/alpaca",
            "text_fields": {"prompt": "instruction", "response": "output"}, "weight": 1.0,
        }
    ],
}  # fmt: skip

TRAINING: dict[str, Any] = {
    "name": "lora_tiny",
    "description": "LoRA for a tiny model",
    "training_params": {
        "learning_rate": 1e-3, "num_train_epochs": 3, "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 2, "warmup_steps": 100, "save_steps": 200,
        "eval_steps": 100,
    },
    "lora_config": {
        "r": 16, "lora_alpha": 16, "target_modules": TARGETS, "lora_dropout": 0.05,
    },
    "evaluation_config": {
        "eval_prompts": ["What is 2+2?"],
        "generation_config": {"max_new_tokens": 64, "temperature": 0.7, "top_p": 0.9},
    },
}  # fmt: skip

ASKED = {
    "learning_rate": 1e-3,
    "num_epochs": 3,
    "micro_batch_size": 16,
    "gradient_accumulation_steps": 2,
    "warmup_steps": 100,
    "save_steps": 200,
    "eval_steps": 100,
    "adapter": "lora",
    "lora_r": 16,
    "lora_alpha": 16,
    "lora_target_modules": TARGETS,
    "lora_dropout": 0.05,
    "sequence_len": 1024,
    "val_set_size": 0.05,
    "response_template": "<|im_start|>assistant\n",
    "datasets": [
        {
            "path": "tatsu-lab/alpaca",
            "input_format": "<|im_start|>user\n{{instruction}}\n<|im_end|>\n"
            "<|im_start|>assistant\n{{output}}\n<|im_end|>",
            "type": "envtune.engine.rows",
        }
    ],
}

FILTERED = {
    "SFT_MIN_PROMPT_LENGTH": 10, "SFT_MAX_PROMPT_LENGTH": 2000, "SFT_MIN_RESPONSE_LENGTH": 10,
    "SFT_MAX_RESPONSE_LENGTH": 2000, "SFT_FILTER_URLS": True, "SFT_FILTER_CODE_BLOCKS": False,
}  # fmt: skip


def _paths(folder: Path, training: str) -> dict[str, str]:
    (folder / "data.json").write_text(json.dumps(DATA))
    (folder / "training.json").write_text(training)
    return {
        "SFT_DATASET_CONFIG": str(folder / "data.json"),
        "SFT_TRAINING_CONFIG": str(folder / "training.json"),
        "SFT_MODEL_PATH": "TinyLlama/TinyLlama_v1.1",
    }


def test_its_two_files(configure: Configure, tmp_path: Path) -> None:
    result, found = configure(**_paths(tmp_path, json.dumps(TRAINING)))
    assert result.code == 0, result.err
    assert not differing(found, ASKED)


def test_its_filters_are_settings(tmp_path: Path) -> None:
    inputs = sources.read(environ=_paths(tmp_path, json.dumps(TRAINING)))
    found = given.settings(sources.with_documents(inputs))
    assert {name: found.get(name) for name in FILTERED} == FILTERED
    assert not [note for note in found.notes if "quality_filters" in note]


def test_its_comments(configure: Configure, tmp_path: Path) -> None:
    lora = """
{
  "lora_config": {
    "r": 64,                    // more parameters
    "lora_alpha": 16,           // r or r/2
    "target_modules": [         // which layers
      "q_proj", "v_proj"        // attention
    ],
    "lora_dropout": 0.1,
    "bias": "none"              // none for Llama
  }
}
"""
    result, found = configure(**_paths(tmp_path, lora))
    assert result.code == 0, result.err
    wanted = {"lora_r": 64, "lora_alpha": 16, "lora_target_modules": ["q_proj", "v_proj"]}
    assert not differing(found, wanted)
    path = tmp_path / "training.json"
    told = f"SFT_TRAINING_CONFIG: {path} has // comments, which JSON does not; passed over"
    assert told in result.err


def test_a_model_that_is_named_twice(configure: Configure, tmp_path: Path) -> None:
    settings = _paths(tmp_path, json.dumps(TRAINING))
    result, _ = configure(**settings, SFT_MODEL_NAME_OR_PATH="Qwen/Qwen2-7B")
    assert result.code == 1
    assert "one variable for one value; SFT_MODEL_" in result.err


def test_weights_of_data_sets(configure: Configure, tmp_path: Path) -> None:
    settings = _paths(tmp_path, json.dumps(TRAINING))
    [alpaca] = DATA["datasets"]
    dolly = alpaca | {"dataset_name": "databricks/databricks-dolly-15k", "weight": 0.5}
    (tmp_path / "data.json").write_text(json.dumps(DATA | {"datasets": [alpaca, dolly]}))
    result, found = configure(**settings)
    assert result.code == 0, result.err
    assert "by weight" not in result.err
    assert [item["path"] for item in found["datasets"]] == [
        "tatsu-lab/alpaca", "databricks/databricks-dolly-15k",
    ]  # fmt: skip
    read = given.settings(sources.with_documents(sources.read(environ=settings)))
    assert read.get("SFT_DATA_WEIGHTS") == [1.0, 0.5]


def test_weights_for_data_sets_that_are_not_there(configure: Configure, tmp_path: Path) -> None:
    settings = _paths(tmp_path, json.dumps(TRAINING))
    result, _ = configure(**settings, SFT_DATA_WEIGHTS="0.7,0.3")
    assert result.code == 1
    told = "SFT_DATA_WEIGHTS: has 2 weights for 1 data sets: tatsu-lab/alpaca; give one for each"
    assert told in result.err


def test_what_is_only_alike_trains_said(configure: Configure, tmp_path: Path) -> None:
    settings = _paths(tmp_path, json.dumps(TRAINING))
    filters = {"remove_duplicates": True, "deduplication": {"threshold": 0.85, "num_perm": 128}}
    (tmp_path / "data.json").write_text(json.dumps(DATA | {"quality_filters": filters}))
    result, found = configure(**settings)
    assert result.code == 0, result.err
    assert found["dataset_exact_deduplication"] is True
    told = "duplicates are told exactly; rows that are only alike train"
    assert f"quality_filters.deduplication: {told}" in result.err
    assert "own hold: quality_filters.filter_urls true" in result.err


def test_several_descriptions_are_one_where_they_agree(
    configure: Configure, tmp_path: Path
) -> None:
    settings = _paths(tmp_path, json.dumps(TRAINING))
    [alpaca] = DATA["datasets"]
    dolly = alpaca | {"dataset_name": "databricks/databricks-dolly-15k"}
    more = tmp_path / "more.json"
    more.write_text(json.dumps(DATA | {"name": "dolly", "datasets": [dolly]}))
    settings["SFT_DATASET_CONFIG"] += f",{more}"
    result, found = configure(**settings, SFT_DATA_WEIGHTS="0.7,0.3")
    assert result.code == 0, result.err
    assert [item["path"] for item in found["datasets"]] == [
        "tatsu-lab/alpaca", "databricks/databricks-dolly-15k",
    ]  # fmt: skip
    more.write_text(json.dumps(DATA | {"template": "instruct", "datasets": [dolly]}))
    result, _ = configure(**settings)
    assert result.code == 1
    assert f"{more} says template otherwise than {tmp_path}/data.json; prepare each" in result.err

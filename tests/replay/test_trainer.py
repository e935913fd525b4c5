"""The SFT trainer's image: one JSON, by a path or in base64."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.replay.conftest import Configure, differing, encoded

# The example of its page about the image, with its own names and values.
EXAMPLE: dict[str, Any] = {
    "accelerate_launch_args": {"main_process_port": 1234},
    "model_name_or_path": "/llama/13B",
    "training_data_path": "/data/twitter_complaints.json",
    "output_dir": "/output/llama-13b-ft-multigpu",
    "num_train_epochs": 5.0,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-5,
    "response_template": "\n### Label:",
    "dataset_text_field": "output",
    "lora_post_process_for_vllm": True,
}
ASKED = {
    "num_epochs": 5.0,
    "micro_batch_size": 4,
    "learning_rate": 1e-5,
    "response_template": "\n### Label:",
    "adapter": None,
}


def mounted(folder: Path, model: Path) -> dict[str, Any]:
    """The example with its three mounts where they are here."""
    data = folder / "twitter_complaints.json"
    data.write_text(json.dumps({"output": "### Text: no\n\n### Label: complaint"}) + "\n")
    mounts = {
        "model_name_or_path": str(model),
        "training_data_path": str(data),
        "output_dir": str(folder / "output"),
    }
    return EXAMPLE | mounts


def test_its_example_by_path(configure: Configure, tmp_path: Path, embedded: Path) -> None:
    document = mounted(tmp_path, embedded / "tiny-llama")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(document))
    result, found = configure(SFT_TRAINER_CONFIG_JSON_PATH=str(path))
    assert result.code == 0, result.err
    assert not differing(found, ASKED | {"base_model": document["model_name_or_path"]})
    assert found["datasets"] == [
        {
            "path": document["training_data_path"],
            "field": "output",
            "ds_type": "json",
            "type": "envtune.engine.rows",
        }
    ]
    assert "envtune.engine.plugin.EnvtunePlugin" in found["plugins"]


def test_its_example_in_base64(configure: Configure, tmp_path: Path, embedded: Path) -> None:
    document = mounted(tmp_path, embedded / "tiny-llama")
    result, found = configure(SFT_TRAINER_CONFIG_JSON_ENV_VAR=encoded(document))
    assert result.code == 0, result.err
    assert not differing(found, ASKED)


def test_nothing_but_the_mounts_is_missing(configure: Configure, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(EXAMPLE | {"output_dir": str(tmp_path / "output")}))
    result, _ = configure(SFT_TRAINER_CONFIG_JSON_PATH=str(path))
    told = [line for line in result.err.splitlines() if "SFT_TRAINER_CONFIG_JSON_PATH: " in line]
    missing = [line for line in told if line.endswith("is not there")]
    assert result.code in (3, 4)
    assert len(missing) == 2
    for words in (
        "model_name_or_path: /llama/13B is not there",
        "training_data_path: /data/twitter_complaints.json is not there",
    ):
        assert any(line.endswith(words) for line in missing), result.err


def _with_its_layers(model: Path, folder: Path) -> Path:
    """The model with two of its layers under the names that the example has for its own."""
    shutil.copytree(model, folder)
    for file in folder.glob("*.safetensors"):
        told = file.read_bytes().replace(b"q_proj", b"c_attn").replace(b"o_proj", b"c_proj")
        file.write_bytes(told)
    return folder


def test_its_lora_example(configure: Configure, tmp_path: Path, embedded: Path) -> None:
    """The layers that it names are those of its model; of another they are refused."""
    lora = {"peft_method": "lora", "r": 8, "lora_dropout": 0.05, "lora_alpha": 16,
            "target_modules": ["c_attn", "c_proj"], "learning_rate": 1e-4}  # fmt: skip
    document = mounted(tmp_path, embedded / "tiny-llama") | lora
    result, _ = configure(SFT_TRAINER_CONFIG_JSON_ENV_VAR=encoded(document))
    assert result.code == 1
    assert "target_modules: c_attn, c_proj fits no layer of the model" in result.err
    model = _with_its_layers(embedded / "tiny-llama", tmp_path / "model")
    document = mounted(tmp_path, model) | lora
    result, found = configure(SFT_TRAINER_CONFIG_JSON_ENV_VAR=encoded(document))
    assert result.code == 0, result.err
    assert not differing(
        found,
        {
            "adapter": "lora", "lora_r": 8, "lora_dropout": 0.05, "lora_alpha": 16,
            "lora_target_modules": ["c_attn", "c_proj"], "learning_rate": 1e-4,
        },
    )  # fmt: skip
    assert "lora_target_linear" not in found


def test_a_short_name_of_accelerate_is_refused(configure: Configure) -> None:
    document = EXAMPLE | {"accelerate_launch_args": {"q": True}}
    result, _ = configure(SFT_TRAINER_CONFIG_JSON_ENV_VAR=encoded(document))
    assert result.code == 1
    assert "accelerate_launch_args: True is not allowed at .q; allowed: no such name here" in (
        result.err
    )


def test_a_method_that_axolotl_has_not_is_refused(configure: Configure) -> None:
    document = EXAMPLE | {"peft_method": "pt"}
    result, _ = configure(SFT_TRAINER_CONFIG_JSON_ENV_VAR=encoded(document))
    assert result.code == 1
    assert "peft_method: cannot be obeyed: pt is not in Axolotl; lora or none" in result.err


def test_checkpoints_that_were_pushed_are_a_place_for_the_result(
    configure: Configure, tmp_path: Path, embedded: Path
) -> None:
    pushed = {"hub_model_id": "org/name", "hub_strategy": "every_save", "push_to_hub": True}
    document = mounted(tmp_path, embedded / "tiny-llama") | pushed
    result, found = configure(
        SFT_TRAINER_CONFIG_JSON_ENV_VAR=encoded(document), HF_TOKEN="hf_replayed"
    )
    assert result.code == 0, result.err
    assert "hub_model_id: taken as SFT_PUSH_TO=hf://org/name" in result.err
    assert "hub_strategy: no checkpoint is pushed; the checked result is, once" in result.err
    assert not [key for key in found if "hub" in key]

"""The RunPod pod: every value a variable, and a YAML of defaults named as --template."""

from pathlib import Path

import pytest
import yaml

from tests.replay.conftest import Configure, differing

MODEL = {"AXOLOTL_BASE_MODEL": "TinyLlama/TinyLlama_v1.1"}
DATA = {"AXOLOTL_DATASETS": '[{"path":"mhenrichsen/alpaca_2k_test","type":"alpaca"}]'}
LLAMA = '["q_proj","v_proj","k_proj","o_proj","gate_proj","down_proj","up_proj"]'

# The defaults that its template holds.
DEFAULTS = {
    "base_model": "TinyLlama/TinyLlama_v1.1",
    "datasets": [{"path": "mhenrichsen/alpaca_2k_test", "type": "alpaca"}],
    "output_dir": "./outputs/mymodel",
    "sequence_len": 4096,
    "adapter": "lora",
    "lora_r": 8,
    "lora_alpha": 16,
    "lora_dropout": 0.05,
    "lora_target_modules": ["q_proj", "v_proj", "k_proj", "o_proj", "gate_proj", "down_proj",
                            "up_proj"],
    "gradient_accumulation_steps": 1,
    "micro_batch_size": 16,
    "num_epochs": 1,
    "optimizer": "adamw_bnb_8bit",
    "learning_rate": 0.0002,
    "load_in_8bit": True,
    "train_on_inputs": False,
    "bf16": "auto",
}  # fmt: skip

EXAMPLES = [
    (  # descriptive names
        {
            "AXOLOTL_BASE_MODEL": "NousResearch/Llama-3.2-1B",
            "AXOLOTL_DATASETS": '[{"path":"teknium/GPT4-LLM-Cleaned","type":"alpaca"}]',
        },
        {"base_model": "NousResearch/Llama-3.2-1B"},
    ),
    (  # Llama
        MODEL | DATA
        | {"AXOLOTL_IS_LLAMA_DERIVED_MODEL": "true", "AXOLOTL_LORA_TARGET_MODULES": LLAMA},
        {"is_llama_derived_model": True, "lora_target_modules": yaml.safe_load(LLAMA)},
    ),
    (  # Mistral
        MODEL | DATA
        | {"AXOLOTL_IS_MISTRAL_DERIVED_MODEL": "true",
           "AXOLOTL_LORA_TARGET_MODULES": '["q_proj","v_proj"]'},
        {"is_mistral_derived_model": True, "lora_target_modules": ["q_proj", "v_proj"]},
    ),
    (  # limited memory
        MODEL | DATA
        | {"AXOLOTL_LOAD_IN_8BIT": "true", "AXOLOTL_GRADIENT_CHECKPOINTING": "true",
           "AXOLOTL_MICRO_BATCH_SIZE": "1", "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "16"},
        {"load_in_8bit": True, "gradient_checkpointing": True, "micro_batch_size": 1,
         "gradient_accumulation_steps": 16, "adapter": "lora"},
    ),
    (  # the shortest training
        MODEL | DATA
        | {"AXOLOTL_MICRO_BATCH_SIZE": "1", "AXOLOTL_NUM_EPOCHS": "1", "AXOLOTL_MAX_STEPS": "5"},
        {"micro_batch_size": 1, "num_epochs": 1, "max_steps": 5},
    ),
    (  # speed; flash_attention is the old name of one attention
        MODEL | DATA
        | {"AXOLOTL_FLASH_ATTENTION": "true", "AXOLOTL_SAMPLE_PACKING": "true",
           "AXOLOTL_TORCH_COMPILE": "true"},
        {"attn_implementation": "flash_attention_2", "sample_packing": True,
         "torch_compile": True},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("variables", "asked"), EXAMPLES)
def test_its_examples(
    configure: Configure, variables: dict[str, str], asked: dict[str, object]
) -> None:
    result, found = configure(**variables)
    assert result.code == 0, result.err
    assert not differing(found, asked)


def test_the_old_name_of_an_attention_is_told(configure: Configure) -> None:
    result, _ = configure(**MODEL, **DATA, AXOLOTL_FLASH_ATTENTION="true")
    line = "AXOLOTL_FLASH_ATTENTION: is deprecated; taken as attn_implementation: flash_attention_2"
    assert line in result.err


def test_its_template_is_a_file_of_defaults(configure: Configure, tmp_path: Path) -> None:
    template = tmp_path / "config_template.yaml"
    template.write_text(yaml.safe_dump(DEFAULTS, sort_keys=False))
    result, found = configure(SFT_TEMPLATE=str(template), AXOLOTL_LORA_R="32")
    assert result.code == 0, result.err
    moved = {"output_dir": "checkpoints", "lora_r": 32, "datasets": DEFAULTS["datasets"]}
    assert not differing(found, DEFAULTS | moved)


def test_model_and_data_are_no_keys_of_axolotl(configure: Configure) -> None:
    """What its page calls unclear names, which it took without a word."""
    result, _ = configure(**MODEL, **DATA, AXOLOTL_MODEL="model1", AXOLOTL_DATA="data")
    assert result.code == 1
    assert "AXOLOTL_MODEL: no such setting; did you mean AXOLOTL_" in result.err
    assert "AXOLOTL_DATA: no such setting; did you mean AXOLOTL_" in result.err


def test_a_file_store_of_mlflow_is_refused(configure: Configure) -> None:
    """The cluster framework's page names one; MLflow 3 takes a database or a server."""
    result, _ = configure(**MODEL, **DATA, MLFLOW_TRACKING_URI="file:/out/mlruns")
    assert result.code == 1
    assert "MLFLOW_TRACKING_URI: file:/out/mlruns is a store of files, which MLflow refuses" in (
        result.err
    )

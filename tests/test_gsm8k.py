"""A real data set with a real 32k tokenizer, through the same door."""

import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from envtune.engine import embedded
from tests.harness import SHARED, Entrypoint, losses, read

pytestmark = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the shared data folder is not beside this checkout"
)
ROWS = 500


@pytest.fixture(scope="module")
def gsm8k(tmp_path_factory: pytest.TempPathFactory, forking: dict[str, str]) -> dict[str, str]:
    """A small random Llama with the real tokenizer, and the first five hundred rows."""
    folder = tmp_path_factory.mktemp("gsm8k")
    embedded.make_model(folder / "model", vocabulary=32000)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(SHARED / "llama-tokenizer" / name, folder / "model" / name)
    rows = (SHARED / "gsm8k_train.jsonl").read_text().splitlines(keepends=True)[:ROWS]
    (folder / "gsm8k.jsonl").write_text("".join(rows))
    return {
        "AXOLOTL_BASE_MODEL": str(folder / "model"),
        "AXOLOTL_DATASETS__0__PATH": str(folder / "gsm8k.jsonl"),
        "AXOLOTL_DATASETS__0__TYPE__FIELD_INSTRUCTION": "question",
        "AXOLOTL_DATASETS__0__TYPE__FIELD_OUTPUT": "answer",
        "AXOLOTL_DATASETS__0__TYPE__FORMAT": "{instruction}\n",
        "AXOLOTL_DATASETS__0__TYPE__NO_INPUT_FORMAT": "{instruction}\n",
        "AXOLOTL_SEQUENCE_LEN": "256",
        "AXOLOTL_MICRO_BATCH_SIZE": "2",
        "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "2",
        "AXOLOTL_MAX_STEPS": "15",
        "AXOLOTL_LEARNING_RATE": "5e-3",
        **forking,
    }


def _falls(run: Path) -> bool:
    values = [loss for _, loss, _ in losses(run)]
    return sum(values[-5:]) / 5 < sum(values[:5]) / 5 - 1.0


def test_lora_learns_gsm8k_and_reloads_with_peft(gsm8k: dict[str, str], tmp_path: Path) -> None:
    run = Entrypoint(tmp_path, gsm8k).train()
    assert _falls(run), losses(run)
    assert run.name == "model-gsm8k-full-run1"
    base = AutoModelForCausalLM.from_pretrained(gsm8k["AXOLOTL_BASE_MODEL"])
    ids = torch.arange(10, 40).unsqueeze(0)
    before = base(input_ids=ids).logits
    tuned = PeftModel.from_pretrained(base, run / "adapter")
    assert not torch.equal(before, tuned(input_ids=ids).logits)


def test_full_fine_tuning_learns_gsm8k(gsm8k: dict[str, str], tmp_path: Path) -> None:
    more = {"AXOLOTL_ADAPTER": "null", "AXOLOTL_LEARNING_RATE": "1e-3"}
    run = Entrypoint(tmp_path, gsm8k | more).train()
    assert _falls(run), losses(run)
    assert read(run / "report.json")["steps"] == 15
    AutoModelForCausalLM.from_pretrained(run / "model")

"""The model card: what it says of each kind of artifact, and what it never says."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from envtune.artifacts import layouts
from envtune.stages import model_card, publishing
from envtune.stages.model_card import Told
from envtune.transfer.outgoing import Artifact
from tests.unit.builders import run_config

RECORD: dict[str, Any] = {
    "name": "tiny-llama-rows-full-run1",
    "key": "k" * 64,
    "machine": "2 x NVIDIA H100 80GB HBM3, 16 cores, 128 GiB memory",
    "versions": {"python": "3.11.7", "axolotl": "0.19.0", "peft": "0.20.0"},
    "hashes": {"axolotl.yaml": "a" * 64, "inputs": {"/home/ada/rows.jsonl": "b" * 64}},
    "stages": {
        "train": {"outcome": "done", "checks": ["steps reached"]},
        "parity": {"outcome": "done", "prompts": 7, "largest_difference": 3.7e-5,
                   "report": "/home/ada/x", "checks": ["every token equal"]},
    },
}  # fmt: skip
REPORT = {
    "first_loss": 2.5, "last_loss": 1.25, "steps": 10, "total_tokens": 900, "world_size": 2,
    "elapsed_seconds": 4.5,
}  # fmt: skip
PLAIN = {"kind": "plain", "reason": "It holds LoRA matrices only.", "max_lora_rank": 16}
DORA = {
    "kind": "merged",
    "reason": "It is a DoRA, which vLLM does not serve.",
    "max_lora_rank": None,
}


def told(serving: dict[str, Any] | None = None, **more: Any) -> Told:
    axolotl = {"adapter": "lora", "lora_r": 16, "wandb_entity": "ada", **more.pop("axolotl", {})}
    return Told(RECORD, run_config(axolotl), REPORT, serving=serving or PLAIN, **more)


def made(kind: str, where: str = "acme/tuned", **more: Any) -> str:
    return model_card.render(told(**more), Artifact(kind, {"": Path()}), where, hub=True)


def snippet(text: str) -> str:
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found
    compile(found[1], "card", "exec")
    return found[1]


def served(text: str) -> str:
    return next((line for line in text.splitlines() if line.startswith("vllm serve")), "")


KINDS: list[tuple[str, str, str, str]] = [
    (
        "adapter",
        "peft",
        "adapter",
        "vllm serve acme/Tiny-Llama --enable-lora --max-lora-rank 16 --lora-modules tuned=acme/tuned",
    ),
    (
        "embedding-lora",
        "peft",
        "adapter",
        "vllm serve acme/Tiny-Llama --enable-lora --max-lora-rank 16 --lora-modules tuned=acme/tuned",
    ),
    (
        "resized",
        "peft",
        "adapter",
        "vllm serve tuned/base --enable-lora --max-lora-rank 16 --lora-modules tuned=tuned/adapter",
    ),
    ("merged", "transformers", "finetune", "vllm serve acme/tuned"),
    ("merged_awq", "transformers", "quantized", "vllm serve acme/tuned"),
    ("merged_fp8", "transformers", "quantized", "vllm serve acme/tuned"),
    ("model", "transformers", "finetune", "vllm serve acme/tuned"),
]


@pytest.mark.parametrize(("kind", "library", "relation", "command"), KINDS)
def test_each_kind_says_what_it_is_and_how_it_is_used(
    kind: str, library: str, relation: str, command: str
) -> None:
    text = made(kind)
    data = ModelCard(text).data
    assert (data.library_name, data.base_model) == (library, "acme/Tiny-Llama")
    assert data.to_dict()["base_model_relation"] == relation
    assert (data.datasets, data.pipeline_tag) == (["acme/rows"], "text-generation")
    assert served(text) == command
    assert ("PeftModel" in snippet(text)) == (library == "peft")
    assert ("hf download acme/tuned" in text) == (kind == "resized")


def test_what_is_local_is_named_by_its_last_part_and_no_metadata() -> None:
    local = {
        "base_model": "/home/ada/models/tiny",
        "datasets": [{"path": "/home/ada/rows.jsonl", "type": "alpaca"}],
        "chat_template_jinja": "/home/ada/template.jinja",
    }
    text = made("adapter", axolotl=local)
    data = ModelCard(text).data
    assert data.base_model is None
    assert data.datasets is None
    assert "/home" not in text
    assert not re.search(r"\bada\b", text)
    assert '| `chat_template_jinja` | `"template.jinja"` |' in text
    assert "data: `rows.jsonl`, a local file, as alpaca" in text


def test_figures_that_are_there_are_told() -> None:
    text = made("adapter", evaluation={"loss": 1.5, "perplexity": 4.48169, "success_rate": None})
    for line in (
        "- loss: 2.5000 at the first step, 1.2500 at the last",
        "- hardware: 2 x NVIDIA H100 80GB HBM3, 16 cores, 128 GiB memory; 2 processes",
        "| perplexity | 4.482 |",
        "- largest_difference: 3.7e-05",
        "- every token equal",
        f"- rows.jsonl: `{'b' * 64}`",
    ):
        assert line in text.splitlines(), line
    assert "success_rate" not in text
    assert "## Evaluation" not in made("adapter")


def test_the_licence_is_the_bases_or_said_to_be_unknown() -> None:
    assert ModelCard(made("adapter", license="apache-2.0")).data.license == "apache-2.0"
    unknown = made("adapter")
    assert ModelCard(unknown).data.license == "other"
    assert "its licence is not known here" in unknown


def test_an_adapter_that_vllm_refuses_says_so_and_grows_its_base() -> None:
    text = made("adapter", serving=DORA, resized=372)
    assert "It is a DoRA, which vLLM does not serve." in text
    assert not served(text)
    assert "model.resize_token_embeddings(372)" in snippet(text)


def test_a_tokenizer_that_changed_is_served_and_a_revision_is_kept() -> None:
    changed = {**PLAIN, "tokenizer_changes": ["chat template"]}
    text = made("adapter", serving=changed, axolotl={"model_revision": "v2"})
    assert served(text).endswith("--tokenizer acme/tuned")
    assert "--revision v2" in served(text)
    assert 'revision="v2"' in snippet(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("---\nlicense: llama3.2\n---\n# Base\n", "llama3.2"),
        ("---\ntags: [a]\n---\n", ""),
        ("---\n: : {\n---\n", ""),
        ("# license: mit\n", ""),
        ("---\n- license\n---\n", ""),
    ],
)
def test_the_licence_is_read_from_the_bases_own_card(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(text)
    assert publishing._license(tmp_path) == found
    assert publishing._license(tmp_path / "none") == publishing._license(None) == ""


CHAT = layouts.Told(
    "alpaca", "{{ a }}", begins="### Response:\n",
    example={"path": layouts.CHAT, "body": {"messages": [{"role": "user", "content": "..."}]}},
)  # fmt: skip


def test_the_call_is_shown_in_the_trained_layout() -> None:
    text = made("adapter", layout=CHAT)
    asked = text[text.index("## Ask") : text.index("## Training")]
    assert "laid out as `alpaca`" in asked
    assert 'behind `"### Response:\\n"`' in asked
    [call] = re.findall(r"-d '(.*)'", asked)
    assert json.loads(call) == {"model": "tuned", **CHAT.example["body"]}
    assert "--generation-config acme/tuned" in text
    assert "## Ask" not in made("adapter")
    raw = replace(CHAT, reason="raw text was trained", example={"path": "/v1/completions", "body": {"prompt": "..."}})  # fmt: skip
    text = made("adapter", layout=raw)
    assert "not asked as a chat: raw text was trained" in text
    assert "localhost:8000/v1/completions" in text

"""What a value of LLaMA-Factory's comes to where the name alone does not say."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from envtune.settings.dialects import trainer_values
from envtune.settings.dialects.rules import Noted, Others, Outcome, Refused
from envtune.settings.paths import is_here

# Its template -> Axolotl's of the same model.
TEMPLATES: Mapping[str, str] = {
    "alpaca": "alpaca", "chatml": "chatml", "chatml_de": "chatml", "cohere": "cohere",
    "deepseek": "deepseek_v2", "deepseek3": "deepseek_v3", "exaone": "exaone",
    "falcon_h1": "falcon_h1", "gemma": "gemma", "gemma2": "gemma", "gemma3": "gemma3",
    "gemma3n": "gemma3n", "gemma4": "gemma4", "llama3": "llama3", "llama4": "llama4",
    "mistral": "mistral_v2v3", "phi": "phi_3", "qwen": "qwen_25", "qwen3": "qwen3",
    "qwen3_5": "qwen3_5",
}  # fmt: skip
_ATTENTION = {
    "disabled": "eager", "false": "eager", "sdpa": "sdpa", "true": "flash_attention_2",
    "fa2": "flash_attention_2", "fa3": "flash_attention_3",
}  # fmt: skip
_LOSSES: Mapping[str, Mapping[str, Any]] = {
    "sigmoid": {"rl": "dpo"}, "hinge": {"rl": "dpo", "dpo_loss_type": ["hinge"]},
    "ipo": {"rl": "ipo"}, "orpo": {"rl": "orpo"}, "simpo": {"rl": "simpo"},
}  # fmt: skip


def names(value: Any) -> list[str]:
    """Names with commas between them."""
    listed = value if isinstance(value, list) else str(value or "").split(",")
    return [name.strip() for name in listed if name.strip()]


def several(key: str) -> Callable[[Any, Others], Outcome]:
    """Names with commas between them, as a list under `key`."""
    return lambda value, others: {key: names(value)} if names(value) else {}


def stage(value: str, others: Others) -> Outcome:
    """Its trainers; pref_loss says which of the preferences."""
    if value in ("sft", "pt", "dpo"):
        return {}
    if value == "kto":
        return {"rl": "kto"}
    if value == "rm":
        return Refused("set AXOLOTL_REWARD_MODEL=true with Axolotl's own keys; see coming-from.md")
    return Refused(f"{value} is not in Axolotl; sft, pt, dpo or kto")


def method(value: str, others: Others) -> Outcome:
    if value == "full":
        return {"adapter": None}
    if value != "lora":
        return Refused(f"{value} is not in Axolotl; lora or full")
    return {"adapter": "qlora" if others.get("quantization_bit") == 4 else "lora"}


def bits(value: int, others: Others) -> Outcome:
    if others.get("finetuning_type") == "full":
        return Refused("only an adapter trains on quantized weights; finetuning_type: lora")
    if value not in (4, 8):
        return Refused(f"{value} is neither 4 nor 8")
    return {f"load_in_{value}bit": True}


def targets(value: Any, others: Others) -> Mapping[str, Any]:
    found = names(value)
    return {"lora_target_linear": True} if "all" in found else {"lora_target_modules": found}


def pissa(on: bool, others: Others) -> Mapping[str, Any]:
    rounds = others.get("pissa_iter", 16)
    return (
        {"peft_init_lora_weights": f"pissa_niter_{rounds}" if rounds != -1 else "pissa"}
        if on
        else {}
    )


def preference(key: str) -> Callable[[Any, Others], Outcome]:
    """A number that only a training on preferences reads."""
    return lambda value, others: {key: value} if others.get("stage") in ("dpo", "kto") else {}


def loss(value: str, others: Others) -> Outcome:
    if others.get("stage") != "dpo":
        return {}
    made = _LOSSES.get(value)
    return made or Refused(f"{value} is none of {', '.join(_LOSSES)}")


def template(value: str, others: Others) -> Outcome | list[Outcome]:
    """Axolotl's of the same name, or the model's own, of which most of them are a copy."""
    if others.get("stage") == "pt":
        return Noted("a pretraining lays out nothing")
    if value in TEMPLATES:
        return {"chat_template": TEMPLATES[value]}
    told = Noted(f"{value} is none of Axolotl's; the tokenizer's own chat template lays out")
    return [{"chat_template": "tokenizer_default"}, told]


def attention(value: Any, others: Others) -> Outcome:
    word = str(value).lower()
    if word == "auto":
        return {}
    made = _ATTENTION.get(word)
    return (
        {"attn_implementation": made}
        if made
        else Refused(f"{value} is none of auto, {', '.join(_ATTENTION)}")
    )


def liger(on: bool, others: Others) -> Mapping[str, Any]:
    return trainer_values.liger(on, {})


def revision(value: str, others: Others) -> Mapping[str, Any]:
    return {} if value == "main" else {"model_revision": value}


def export(folder: str, others: Others) -> Outcome | list[Outcome]:
    """Beside a training, the merged model that follows it; alone, another command's file."""
    if "dataset" not in others:
        return Refused("a run merges by itself: SFT_MERGE=true; `envtune export` again")
    return [{"SFT_MERGE": True}, Noted("the merged model lies in the run's merged/")]


def deepspeed(value: Any, others: Others) -> Outcome | list[Outcome]:
    """A file of its examples that is not here is a preset of the same stage."""
    stage = re.search(r"ds_z([0-3])\w*\.json$", str(value))
    if stage is None or is_here(str(value)):
        return {"deepspeed": value}
    preset = {"2": "zero2", "3": "zero3"}.get(stage[1], "ddp")
    told = Noted(f"{value} is not there; SFT_ACCELERATE_PRESET={preset} is what it says")
    return [{"SFT_ACCELERATE_PRESET": preset}, told]

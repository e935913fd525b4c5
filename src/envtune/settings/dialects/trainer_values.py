"""What a value of the SFT trainer's comes to where the name alone does not say."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from envtune.settings.dialects.rules import TEXT, Becomes, Noted, Others, Outcome, Refused
from envtune.settings.schema import Node

_TRACKERS = {
    "wandb": "use_wandb", "mlflow": "use_mlflow", "tensorboard": "use_tensorboard",
    "comet_ml": "use_comet", "trackio": "use_trackio",
}  # fmt: skip
_DTYPES: Mapping[str, Mapping[str, Any]] = {
    "bfloat16": {"bf16": True}, "float16": {"fp16": True},
    "float32": {"bf16": False, "fp16": False}, "auto": {"bf16": "auto"},
}  # fmt: skip
_LIGER = {
    "rope": "liger_rope", "rms_norm": "liger_rms_norm", "layer_norm": "liger_layer_norm",
    "swiglu": "liger_glu_activation", "geglu": "liger_glu_activation",
    "cross_entropy": "liger_cross_entropy",
    "fused_linear_cross_entropy": "liger_fused_linear_cross_entropy",
}  # fmt: skip
# What Liger turns on where liger_kernel_config does not say.
_LIGER_USUAL = {
    "liger_rope": True, "liger_rms_norm": True, "liger_glu_activation": True,
    "liger_fused_linear_cross_entropy": True,
}  # fmt: skip
NO_ALORA = Refused("activated LoRA is not in Axolotl, and vLLM refuses it; peft_method=lora")


def _none_of(value: str, names: Iterable[str]) -> Refused:
    return Refused(f"{value} is none of {', '.join(names)}")


def as_list(value: list[str] | str | None) -> list[str]:
    """Names that may come as one, or not at all."""
    return [value] if isinstance(value, str) else list(value or [])


def trackers(value: Any, others: Others) -> Mapping[str, Any] | Refused:
    """TrainingArguments' report_to and the trainer's own `trackers`, which always writes a file."""
    names = [n for n in map(str.lower, as_list(value)) if n not in ("none", "file_logger")]
    for name in names:
        if name not in _TRACKERS:
            return _none_of(name, _TRACKERS)
    return {_TRACKERS[name]: True for name in names}


def report_to(value: Any, others: Others) -> Mapping[str, Any] | Refused:
    """`none` keeps Weights & Biases off although its key is set."""
    if set(as_list(value)) <= {"none"} and not {"trackers", "tracker"} & others.keys():
        return {"use_wandb": False}
    return trackers(value, others)


def targets(value: Any, others: Others) -> Mapping[str, Any]:
    names = as_list(value)
    if "all-linear" in names:  # as the trainer does, whatever stands beside it
        return {"lora_target_linear": True}
    return {"lora_target_modules": names} if names else {}


def method(value: str | None, others: Others) -> Mapping[str, Any] | Refused:
    name = (value or "none").lower()
    if name not in ("lora", "none"):
        return NO_ALORA if name == "alora" else Refused(f"{name} is not in Axolotl; lora or none")
    return {"adapter": "lora" if name == "lora" else None}


def choice(table: Mapping[str, Mapping[str, Any]]) -> Becomes:
    """A word of a closed list, and the keys that it stands for."""

    def make(value: str, others: Others) -> Outcome:
        made = table.get(value.lower())
        return _none_of(value, table) if made is None else made

    return Becomes(TEXT, make)


def length(key: str, node: Node) -> Becomes:
    """-1 leaves the length of the training to the other of max_steps and num_train_epochs."""
    return Becomes(node, lambda value, others: {key: value} if value > 0 else {})


def warmup(value: float, others: Others) -> Mapping[str, Any]:
    """TrainingArguments reads a number below one as a share of the steps; 0 leaves the ratio."""
    if 0 < value < 1:
        return {"warmup_ratio": value}
    if value == 0 and others.get("warmup_ratio"):
        return {}
    return {"warmup_steps": int(value)}


def flash(on: bool, others: Others) -> Mapping[str, Any]:
    """flash_attn_implementation says which, where both are given."""
    named = on and others.get("flash_attn_implementation")
    return {} if named else {"attn_implementation": "flash_attention_2" if on else "sdpa"}


def dtype(value: str, others: Others) -> Outcome:
    """The format of the weights; Axolotl has one format, and that of the arithmetic counts."""
    made = _DTYPES.get(value.removeprefix("torch."))
    if made is None:
        return _none_of(value, _DTYPES)
    if said := next((name for name in ("bf16", "fp16") if others.get(name) is True), None):
        return Noted(f"{said} is set too and counts")
    return {name: item for name, item in made.items() if others.get(name) is not item}


def _unescaped(text: str) -> str:
    r"""`\n` written out is a line break in every template of the trainer's."""
    escapes = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    return re.sub(r"\\([ntr\\])", lambda found: escapes[found[1]], text)


def template(key: str) -> Becomes:
    """A template's text under `key`."""
    return Becomes(TEXT, lambda text, others: {key: _unescaped(text)})


def chat_template(text: str, others: Others) -> Mapping[str, Any]:
    """Jinja text, or the name of one of Axolotl's templates."""
    if "{" not in text:
        return {"chat_template": text}
    return {"chat_template": "jinja", "chat_template_jinja": _unescaped(text)}


def quantization(value: str, others: Others) -> Outcome:
    if value == "mxfp4":
        return {"model_quantization_config": "Mxfp4Config"}
    return Refused(f"{value} is not mxfp4; load_in_4bit with adapter=qlora quantizes any model")


def liger(value: bool, others: Others) -> Mapping[str, Any]:
    """Liger's kernels, where liger_kernel_config does not say which."""
    said = others.get("liger_kernel_config") is not None
    return _LIGER_USUAL if value and not said else {}


def liger_parts(value: Mapping[str, Any], others: Others) -> Outcome:
    if unknown := next((name for name in value if name not in _LIGER), None):
        return _none_of(unknown, _LIGER)
    if others.get("use_liger_kernel") is not True:
        return Noted("use_liger_kernel is not on")
    return {**_LIGER_USUAL, **{_LIGER[name]: on for name, on in value.items()}}


def resume(value: str | bool, others: Others) -> Outcome:
    """An unfinished run goes on unless it is told not to, which is what True asks for."""
    word = str(value).lower()
    if word in ("false", "no"):
        return Noted("an unfinished run resumes all the same; SFT_RESUME_FROM=off begins it anew")
    return {} if word in ("true", "latest") else {"resume_from_checkpoint": value}


def strategy(key: str) -> Callable[[str | bool, Others], Outcome]:
    """`no` without quotes is false in YAML 1.1."""
    return lambda value, others: {key: "no" if value is False else value}


def private(on: bool | None, others: Others) -> Mapping[str, Any]:
    """Null leaves it to the Hub there, and to the default here."""
    return {} if on is None else {"SFT_PUSH_PRIVATE": on}


def padded(value: int | None, others: Others) -> Mapping[str, Any] | Refused:
    if value in (None, 0, 1):
        return {}
    if value == 32:  # the one size that Axolotl pads to
        return {"resize_token_embeddings_to_32x": True}
    return Refused(f"{value} is not supported: Axolotl pads the embeddings to 32 or not at all")

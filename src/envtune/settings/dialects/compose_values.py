"""What a value of the compose pipeline's comes to where the name alone does not say."""

from collections.abc import Mapping
from typing import Any

from envtune.settings.dialects.rules import COUNT, NUMBER, Noted, Others, Outcome, Refused

# A stage of the chain, and the setting that turns it on.
CHAIN: Mapping[str, Mapping[str, Any]] = {
    "export-merged": {"SFT_MERGE": True},
    "convert-awq": {"SFT_QUANTISE": "w4a16"},
    "eval-sft": {"SFT_EVALUATE": True},
    "serve-vllm": {"SFT_SERVE": True},
}
# Written in three places there, and one object here.
GENERATION = {"max_new_tokens": COUNT, "temperature": NUMBER, "top_p": NUMBER}


def sample(value: Any, others: Others) -> Mapping[str, Any] | Refused:
    """A number of rows; `full` is all of them."""
    if isinstance(value, int) and value > 0:
        return {"SFT_SAMPLE_SIZE": value}
    if str(value).lower() in ("full", "none", "null", ""):
        return {}
    return Refused(f"{value!r} is neither a number of rows nor full")


def languages(value: Any, others: Others) -> Mapping[str, Any]:
    """One or several; none is no filter."""
    several = [value] if isinstance(value, str) else value
    return {"SFT_LANGUAGES": several} if several else {}


def cutoff(value: int, others: Others) -> Mapping[str, Any] | Noted:
    if others.get("train.cutoff_len") is not None:
        return Noted("train.cutoff_len counts")
    return {"sequence_len": value}


def least_rate(value: float, others: Others) -> Outcome:
    """transformers' own curve takes the last rate, Axolotl's its share of the first; a curve
    that ends at 0 passes it over, as the pipeline does."""
    curve = others.get("train.lr_scheduler", "linear")
    if curve == "cosine_with_min_lr":
        return {"lr_scheduler_kwargs": {"min_lr": value}}
    if curve != "cosine":
        return Noted(f"{curve} ends at 0; only the cosine schedules end at a smallest rate")
    first = others.get("train.learning_rate")
    if not isinstance(first, int | float) or not 0 <= value < first:
        return Refused("has to be smaller than train.learning_rate")
    return {"cosine_min_lr_ratio": value / first}


def half(on: bool, others: Others) -> Mapping[str, Any] | Noted:
    """The pipeline's own file sets both formats; bf16 is the one that it prefers."""
    if on and others.get("train.bf16") is True:
        return Noted("train.bf16 is true too and is used alone: one format at a time")
    return {"fp16": on}


def resume(value: str, others: Others) -> Mapping[str, Any]:
    """An unfinished run goes on, which is what `latest` asks for."""
    return {} if value == "latest" else {"resume_from_checkpoint": value}


def generation(name: str, value: Any, others: Others) -> Mapping[str, Any]:
    """All of them at once, by the first that is there."""
    found = {one: others.get(f"eval.{one}") for one in GENERATION}
    given = {one: value for one, value in found.items() if value is not None}
    return {"SFT_EVAL_GENERATION": given} if name == next(iter(given)) else {}


def console(value: str, others: Others) -> Mapping[str, Any]:
    on = others.get("logging.debug_pipeline") is True
    return {} if on else {"SFT_LOG_LEVEL": value.upper()}


def cache(value: str, others: Others) -> Mapping[str, Any] | Noted:
    if "${" in value or "\\" in value:
        return Noted(f"{value} is no folder here; HF_HOME says where the cache is")
    return {"SFT_CACHE_DIR": value}


def chain(stages: list[str], others: Others) -> Mapping[str, Any]:
    """The stages run in their own order, whatever order they are named in."""
    if others.get("awq.enabled") is False:
        stages = [stage for stage in stages if stage != "convert-awq"]
    return {name: value for stage in stages for name, value in CHAIN[stage].items()}


def served_name(value: str, others: Others) -> Mapping[str, Any] | Noted:
    if others.get("serve.model_name"):
        return Noted("serve.model_name counts")
    return {"SFT_SERVE_SERVED_MODEL_NAME": [value]}


def served_path(value: str, others: Others) -> Mapping[str, Any]:
    """`none` leaves the choice to the server."""
    named = value.strip().lower() not in ("none", "null", "")
    return {"SFT_SERVED_MODEL_RELPATH": value} if named else {}


def four_bits(on: bool, others: Others) -> Mapping[str, Any]:
    return {"adapter": "qlora", "load_in_4bit": True} if on else {}

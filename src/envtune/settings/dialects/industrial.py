"""The industrial pipeline's two JSON files: one describes data, the other the training.

Names are `section.name`; names that begin with an underscore are its comments. The flags of
its training are TrainingArguments, so that table is used as it is.
"""

from collections.abc import Mapping
from typing import Any

from envtune.settings.dialects import trainer
from envtune.settings.dialects.rules import (
    ANY,
    FLAG,
    NUMBER,
    TEXT,
    Becomes,
    Defaults,
    Noted,
    Others,
    Outcome,
    Refused,
    Rule,
    prefixed,
)
from envtune.settings.own.preparation import STRATEGY, WEIGHTS

_NAMES = dict.fromkeys(("name", "description", "version", "model_target"), Noted())
_RAW_TEXT = Noted("only raw text reads it; the data set's own file says this")

# How a row reads under each template, and where the part that is trained begins.
_TEMPLATES: Mapping[str, tuple[str, str]] = {
    "chatml": (
        "<|im_start|>user\n{prompt}\n<|im_end|>\n<|im_start|>assistant\n{response}\n<|im_end|>",
        "<|im_start|>assistant\n",
    ),
    "instruct": ("### Instruction:\n{prompt}\n\n### Response:\n{response}", "### Response:\n"),
    "chat": ("Human: {prompt}\n\nAssistant: {response}", "Assistant: "),
    "alpaca": (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\n{prompt}\n\n### Response:\n{response}",
        "### Response:\n",
    ),
}


def _template(name: str, others: Others) -> Mapping[str, Any] | Refused:
    if name not in _TEMPLATES:
        return Refused(f"{name} is none of {', '.join(_TEMPLATES)}")
    return {"response_template": _TEMPLATES[name][1]}


def _datasets(value: Any, others: Others) -> list[Outcome] | Refused:
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        return Refused("has to be a list of objects with dataset_name and text_fields")
    if lost := [number for number, item in enumerate(value) if not item.get("dataset_name")]:
        return Refused(f"[{lost[0]}] has no dataset_name: a repository of the Hub, or a path")
    layout = _TEMPLATES.get(str(others.get("template")), _TEMPLATES["chatml"])[0]
    made: list[Outcome] = [{"datasets": [_dataset(item, layout) for item in value]}]
    if len(value) > 1 and any("weight" in item for item in value):
        made.append({WEIGHTS: [item.get("weight", 1) for item in value]})
    for item in value:
        if item.get("custom_processing"):
            name = item.get("name") or item.get("dataset_name")
            made.append(Noted(f"the custom_processing of {name} is not done; its rows are as read"))
    return made


def _dataset(item: Mapping[str, Any], layout: str) -> dict[str, Any]:
    """One of its data sets as Axolotl's, with the columns put into the template."""
    found = {"path": item.get("dataset_name"), "name": item.get("subset")}
    rows = item.get("max_samples")
    split = item.get("split") or "train"
    found["split"] = f"{split}[:{rows}]" if rows else item.get("split")
    if item.get("type") in ("json", "jsonl"):
        found["ds_type"] = "json"
    fields = item.get("text_fields") or {}
    columns = {name: "{{" + str(fields.get(name, name)) + "}}" for name in ("prompt", "response")}
    found["input_format"] = layout.format(**columns)
    return {name: value for name, value in found.items() if value is not None}


def _held_back(ratio: float, others: Others) -> Mapping[str, Any] | Refused:
    if not 0 < ratio <= 1:
        return Refused(f"{ratio} is not between 0 and 1")
    return {"val_set_size": round(1 - ratio, 6)}


def _unique(on: bool, others: Others) -> Mapping[str, Any]:
    return {"dataset_exact_deduplication": True} if on else {}


_BUDGET = Noted("rows are not taken up to a budget; SFT_SAMPLE_SIZE bounds those of each set")
# Said of each row, prompt and answer.
_FILTERS: dict[str, Rule] = {
    "min_prompt_length": "SFT_MIN_PROMPT_LENGTH",
    "max_prompt_length": "SFT_MAX_PROMPT_LENGTH",
    "min_response_length": "SFT_MIN_RESPONSE_LENGTH",
    "max_response_length": "SFT_MAX_RESPONSE_LENGTH",
    "filter_urls": "SFT_FILTER_URLS",
    "filter_code_blocks": "SFT_FILTER_CODE_BLOCKS",
    "require_ascii": "SFT_REQUIRE_ASCII",
    "remove_duplicates": Becomes(FLAG, _unique),
    "deduplication": Noted("duplicates are told exactly; rows that are only alike train"),
}
_SAMPLING: dict[str, Rule] = {
    "mode": Noted(),
    "target_tokens": _BUDGET,
    "target_conversations": _BUDGET,
    "max_samples_per_dataset": "SFT_SAMPLE_SIZE",
    "seed": Noted("one seed, `seed`, draws everything"),
    "chars_per_token": Noted(),
    "analysis_sample_size": Noted(),
}

DATA: dict[str, Rule] = {
    **_NAMES,
    "template": Becomes(TEXT, _template),
    "datasets": Becomes(ANY, _datasets),
    "output_params.sequence_length": "sequence_len",
    "output_params.train_ratio": Becomes(NUMBER, _held_back),
    "output_params.enable_packing": "sample_packing",
    "output_params.shard_size": Noted("rows are not cut into shards"),
    "output_params.batch_size": Noted("rows are not cut into shards"),
    **prefixed("quality_filters", _FILTERS),
    **prefixed("sampling_strategy", _SAMPLING),
    "processing_metadata": Noted(),
}

EVALUATION: dict[str, Rule] = {
    "eval_prompts": "SFT_EVAL_PROMPTS",
    "generation_config": "SFT_EVAL_GENERATION",
}

TRAINING: dict[str, Rule] = {
    **_NAMES,
    **prefixed("training_params", trainer.TABLE),
    **prefixed("lora_config", trainer.LORA),
    **prefixed("checkpointing", trainer.TABLE),
    **prefixed("hardware_optimization", trainer.TABLE),
    "hardware_optimization.max_memory_mb": Noted("the GPU's whole memory is used"),
    "dataset_config.max_seq_length": _RAW_TEXT,
    "dataset_config.packing": _RAW_TEXT,
    "dataset_config.dataset_text_field": _RAW_TEXT,
    "dataset_config.formatting_func": _RAW_TEXT,
    "dataset_config.chars_per_token": _RAW_TEXT,
    "dataset_config.interleave_strategy": STRATEGY,
    **prefixed("evaluation_config", EVALUATION),
    **EVALUATION,
}


def defaults(others: Others) -> Defaults:
    """What its preparation does where its file does not say otherwise."""
    if "datasets" not in others:
        return {}
    return {"quality_filters.filter_urls": True, "quality_filters.filter_code_blocks": True}

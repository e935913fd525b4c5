"""The data sets: a type for those that have none, told by the columns of the first row."""

import copy
from collections.abc import Mapping
from typing import Any

from envtune.config import Choice, Facts, Value
from envtune.facts import DataFacts

# The first row whose columns are all there tells the type. ShareGPT's names differ from
# those of `messages`, hence the mapping.
_BY_COLUMNS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("messages",), {"type": "chat_template", "field_messages": "messages"}),
    (
        ("conversations",),
        {
            "type": "chat_template",
            "field_messages": "conversations",
            "message_property_mappings": {"role": "from", "content": "value"},
        },
    ),
    (("instruction", "output"), {"type": "alpaca"}),
    (
        ("prompt", "completion"),
        {
            "type": {
                "field_instruction": "prompt",
                "field_output": "completion",
                "format": "{instruction}",
                "no_input_format": "{instruction}",
            }
        },
    ),
    (("text",), {"type": "completion", "field": "text"}),
)

# Keys that ask for an evaluation, and keys whose rows come one by one and cannot be split.
EVALUATES = (
    "eval_strategy", "eval_steps", "evals_per_epoch", "early_stopping_patience",
    "load_best_model_at_end", "do_bench_eval",
)  # fmt: skip
STREAMS = ("streaming", "pretraining_dataset")


def detect(columns: tuple[str, ...]) -> dict[str, Any] | None:
    """The keys of an Axolotl data set for rows with these columns, or None."""
    found = next((keys for names, keys in _BY_COLUMNS if set(names) <= set(columns)), None)
    return copy.deepcopy(found)


def with_types(values: dict[str, Value], facts: Facts) -> dict[str, Value]:
    """`values` with `type` and `ds_type` filled in where the user left them out."""
    given = values.get("datasets")
    if given is None or not isinstance(given.value, list):
        return values
    filled = [_filled(item, data) for item, data in zip(given.value, facts.data, strict=True)]
    notes = [
        f"type {item['type'] if isinstance(item['type'], str) else 'prompt/completion'} by column"
        for old, item in zip(given.value, filled, strict=True)
        if "type" not in old and "type" in item
    ]
    return values | {"datasets": Value(filled, given.source, "; ".join(notes))}


def _filled(dataset: Mapping[str, Any], data: DataFacts) -> dict[str, Any]:
    filled = dict(dataset)
    if data.local and data.ds_type and "ds_type" not in filled:
        filled["ds_type"] = data.ds_type
    if "type" not in filled:
        filled |= {k: v for k, v in (detect(data.columns) or {}).items() if k not in filled}
    return filled


def validation(facts: Facts, chosen: Mapping[str, Any]) -> Choice | None:
    if chosen.get("test_datasets"):
        return None
    wanting = [key for key in EVALUATES if chosen.get(key) not in (None, False, 0, "no")]
    if wanting and not any(chosen.get(key) for key in STREAMS):
        return Choice(0.05, f"{wanting[0]} asks for rows to evaluate on")
    return Choice(0.0, "all rows train; 0.05 holds 5 % back")


RULES = (("val_set_size", validation),)

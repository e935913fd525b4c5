"""The data sets: a type for those that have none, told by their keys or their columns."""

from collections.abc import Mapping
from typing import Any

from envtune.data import sets, shapes
from envtune.resolve.config import Choice, Facts, Value
from envtune.resolve.facts import DataFacts, file_type
from envtune.settings.typed import Settings

# The type of rows that are laid out or masked by a template.
ROWS = shapes.TEMPLATED
# Keys that say how a row reads: a validation set reads like the first training set.
_READING = (
    "type", "field", "field_messages", "message_property_mappings", "input_format",
)  # fmt: skip

# Keys that ask for an evaluation, and keys whose rows come one by one and cannot be split.
EVALUATES = (
    "eval_strategy", "eval_steps", "evals_per_epoch", "early_stopping_patience",
    "load_best_model_at_end", "do_bench_eval",
)  # fmt: skip
STREAMS = ("streaming", "pretraining_dataset")


def with_types(values: dict[str, Value], facts: Facts, sample: int | None) -> dict[str, Value]:
    """`values` with what the user left out of the data sets: `type`, `ds_type` and `split`.

    `sample` rows are taken of each training set, or all.
    """
    given, masked = values.get("datasets"), bool(_plain(values, "response_template"))
    if given is None or not isinstance(given.value, list):
        return values
    read = [_read(item, data, masked) for item, data in zip(given.value, facts.data, strict=True)]
    filled = [_sampled(item, sample) for item in read]
    notes = [
        f"type {_shown(item['type'])} by {_teller(old, item)}"
        for old, item in zip(given.value, filled, strict=True)
        if "type" not in old and "type" in item
    ]
    values = values | {"datasets": Value(filled, given.source, "; ".join(notes))}
    return values | _validating(values, facts)


def streamed(values: Mapping[str, Value]) -> dict[str, Value]:
    """Rows that are streamed out of a local file: as the datasets library names those, since
    Axolotl hands it the path alone, which it takes for a folder."""
    given = values.get("pretraining_dataset")
    if given is None or not isinstance(given.value, list):
        return {}
    items = [_as_file(item) if isinstance(item, Mapping) else item for item in given.value]
    return {"pretraining_dataset": Value(items, given.source, given.reason)}


def _as_file(item: Mapping[str, Any]) -> dict[str, Any]:
    path = str(item.get("path") or "")
    reader = file_type(path) if path.startswith("/") and not item.get("data_files") else None
    return {**item, **({"path": reader, "data_files": path} if reader else {})}


def _plain(values: Mapping[str, Value], key: str) -> Any:
    return values[key].value if key in values else None


def _shown(kind: Any) -> str:
    return kind if isinstance(kind, str) else "prompt/completion"


def _teller(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What told the type: a key that the user set, or the columns of the first row."""
    told = set(_READING) & old.keys() or new["type"] == ROWS
    return "what is set" if told else "column"


def untyped(settings: Settings) -> dict[str, tuple[int, ...]]:
    """The data sets of each key of which nobody has said how their rows read. A validation set
    reads as the first training set does."""
    masked = settings.axolotl.get("response_template")
    if masked is not None and masked.value:
        return {}
    found = {}
    for key in ("datasets", "test_datasets"):
        given = settings.axolotl.get(key)
        items = given.value if given and isinstance(given.value, list) else ()
        found[key] = tuple(i for i, item in enumerate(items) if not item.keys() & set(sets.SAYS))
    return found if 0 in found["datasets"] else {**found, "test_datasets": ()}


def as_read(dataset: Mapping[str, Any], data: DataFacts, *, masked: bool) -> dict[str, Any]:
    """A data set with how its rows read, where that is known."""
    return _read(dataset, data, masked)


def is_typed(dataset: Mapping[str, Any], data: DataFacts, *, masked: bool) -> bool:
    """Whether it is known how the rows of a data set read."""
    return "type" in _read(dataset, data, masked)


def is_chat(dataset: Mapping[str, Any], data: DataFacts) -> bool:
    """Whether the rows of a data set are laid out by a chat template that is not its own."""
    read = _read(dataset, data, False)
    named = str(read.get("type", "")).startswith("chat_template")
    return named and not (read.get("chat_template") or read.get("chat_template_jinja"))


def is_masked(dataset: Mapping[str, Any], data: DataFacts) -> bool:
    """Whether a data set is one that `response_template` masks."""
    return bool(_read(dataset, data, True).get("type") == ROWS)


def _read(dataset: Mapping[str, Any], data: DataFacts, masked: bool) -> dict[str, Any]:
    """`dataset` with how its rows read."""
    filled = _typed(dataset, data)
    if "type" in filled:
        return filled
    if "field_messages" in filled:  # its template masks all but the answers
        return filled | {"type": "chat_template"}
    if masked or "input_format" in filled:
        return filled | {"type": ROWS}
    if "field" in filled:
        return filled | {"type": "completion"}
    found = shapes.detect(data.columns) or {}
    return filled | {name: value for name, value in found.items() if name not in filled}


def _typed(dataset: Mapping[str, Any], data: DataFacts) -> dict[str, Any]:
    """`dataset` with the format of its file."""
    told = data.local and data.ds_type and "ds_type" not in dataset
    return {**dataset, **({"ds_type": data.ds_type} if told else {})}


def _sampled(dataset: dict[str, Any], sample: int | None) -> dict[str, Any]:
    split = dataset.get("split") or "train"
    return dataset if sample is None or "[" in split else dataset | {"split": f"{split}[:{sample}]"}


def _validating(values: Mapping[str, Value], facts: Facts) -> dict[str, Value]:
    """The validation sets, which read like the first training set where they do not say."""
    given = values.get("test_datasets")
    if given is None or not isinstance(given.value, list):
        return {}
    like = {k: v for k, v in values["datasets"].value[0].items() if k in _READING}
    filled = [
        (like if "type" not in item else {}) | _typed(item, data)
        for item, data in zip(given.value, facts.test_data, strict=True)
    ]
    return {"test_datasets": Value(filled, given.source, given.reason)}


def validation(facts: Facts, chosen: Mapping[str, Any]) -> Choice | None:
    if chosen.get("test_datasets"):
        return None
    wanting = [key for key in EVALUATES if chosen.get(key) not in (None, False, 0, "no")]
    if wanting and not any(chosen.get(key) for key in STREAMS):
        return Choice(0.05, f"{wanting[0]} asks for rows to evaluate on")
    return Choice(0.0, "all rows train; 0.05 holds 5 % back")


RULES = (("val_set_size", validation),)

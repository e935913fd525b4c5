"""What a value of TRL's comes to where the name alone does not say."""

from collections.abc import Callable, Mapping
from typing import Any

from envtune.settings.dialects import trainer_values
from envtune.settings.dialects.rules import ANY, Becomes, Noted, Others, Outcome, Refused

_ALL_WEIGHTS = Noted("use_peft is not true, so all weights train, as in TRL")
# What only a training on preferences has.
_KTO = {"desirable_weight", "undesirable_weight"}
_PREFERENCES = {"beta", "max_prompt_length", "precompute_ref_log_probs", "use_weighting",
                "f_divergence_type", "label_smoothing", "sync_ref_model", *_KTO}  # fmt: skip


def prefers(others: Others) -> str | None:
    """Which training on preferences a file is for, by its names."""
    if _KTO & others.keys():
        return "kto"
    return "dpo" if _PREFERENCES & others.keys() else None


def preference(key: str) -> Callable[[Any, Others], Outcome]:
    return lambda value, others: {key: value}


def beta(value: float, others: Others) -> Outcome:
    return {"rl": prefers(others) or "dpo", "rl_beta": value}


def loss(value: Any, others: Others) -> Outcome:
    """A list for DPO; next-token likelihood for SFT."""
    names = [value] if isinstance(value, str) else list(value or [])
    if prefers(others) == "dpo":
        return {} if names == ["sigmoid"] else {"dpo_loss_type": names}
    if names in ([], ["nll"], ["chunked_nll"], ["kto"]):
        return {}
    return Refused(f"{', '.join(names)} is no loss of Axolotl's; nll")


def method(on: bool, others: Others) -> Outcome:
    if not on:
        return {"adapter": None}
    return {"adapter": "qlora" if others.get("load_in_4bit") is True else "lora"}


def tuned(key: str) -> Becomes:
    """A setting of an adapter, which TRL passes over without use_peft."""
    return Becomes(
        ANY, lambda value, others: {key: value} if others.get("use_peft") is True else _ALL_WEIGHTS
    )


def targets(value: Any, others: Others) -> Outcome:
    return trainer_values.targets(value, others) if others.get("use_peft") is True else _ALL_WEIGHTS


def quantized(key: str) -> Becomes:
    """An option of the 4-bit base, which nothing reads without one."""
    return Becomes(
        ANY,
        lambda value, others: (
            {f"bnb_config_kwargs.{key}": value} if others.get("load_in_4bit") is True else {}
        ),
    )


def test_split(split: str, others: Others) -> Outcome:
    """Evaluated where there is an eval_strategy, as in TRL."""
    name = others.get("dataset_name")
    asked = others.get("eval_strategy") or others.get("evaluation_strategy")
    if name is None or asked in (None, False, "no") or others.get("test_split_size"):
        return {}
    place = {"path": name, "name": others.get("dataset_config"), "split": split}
    return {"test_datasets": [{k: v for k, v in place.items() if v is not None}]}


def mixture(value: Any, others: Others) -> Outcome | list[Outcome]:
    """A list of data sets, or the Handbook's object around one."""
    inside = value if isinstance(value, Mapping) else {"datasets": value}
    listed = inside.get("datasets")
    if not isinstance(listed, list) or not all(isinstance(item, Mapping) for item in listed):
        return Refused("has to hold a list of objects with a path, a name and a split")
    made: list[Outcome] = [{"datasets": [_dataset(item) for item in listed]}]
    if (held_back := inside.get("test_split_size")) is not None:
        made.append({"val_set_size": held_back})
    if len({item.get("weight", 1) for item in listed}) > 1:
        made.append(Noted("data sets are not sampled by weight; every row trains"))
    return made


def _dataset(item: Mapping[str, Any]) -> dict[str, Any]:
    split, share = item.get("split", "train"), item.get("fraction")
    if share is not None and share != 1:
        split = f"{split}[:{round(100 * share)}%]"
    found = {
        "path": item.get("path", item.get("id")),
        "name": item.get("name", item.get("config")),
        "split": split,
        "data_files": item.get("data_files"),
    }
    return {name: value for name, value in found.items() if value is not None}


def text_field(name: str, others: Others) -> Outcome:
    """The usual column is found by its name where there is one."""
    return {} if name == "text" else {"datasets.0.field": name}


def chat_template(text: str, others: Others) -> Mapping[str, Any]:
    """Jinja text as it is, or the name of one of Axolotl's templates."""
    if "{" not in text:
        return {"chat_template": text}
    return {"chat_template": "jinja", "chat_template_jinja": text}


def template_path(path: str, others: Others) -> Mapping[str, Any]:
    return {"chat_template": "jinja", "chat_template_jinja": path}


def answers_only(on: bool, others: Others) -> Mapping[str, Any]:
    """Without it every token of a conversation is trained."""
    return {"train_on_inputs": not on}


def completions_only(on: bool, others: Others) -> Mapping[str, Any]:
    answers = on or others.get("assistant_only_loss") is True
    return {} if "assistant_only_loss" in others else {"train_on_inputs": not answers}

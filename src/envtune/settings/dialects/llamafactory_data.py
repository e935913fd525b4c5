"""LLaMA-Factory's data sets: names that dataset_info.json describes -> Axolotl's.

The file lies in `dataset_dir`; a name that it does not hold may be a file or a repository.
"""

from collections.abc import Callable, Mapping
from typing import Any

from envtune.settings import documents
from envtune.settings.dialects.llamafactory_values import TEMPLATES, names
from envtune.settings.dialects.rules import Noted, Others, Outcome, Refused
from envtune.settings.own.preparation import (
    ALL_EXHAUSTED,
    FIRST_EXHAUSTED,
    STRATEGY,
    WEIGHTS,
)
from envtune.settings.paths import is_here

_INFO = "dataset_info.json"
# How a question stands in a template of ChatML's kin, and in Llama 3's: where the answer
# begins. Its end is the tokenizer's.
_CHATML = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
_TURNS: Mapping[str, str] = {
    **dict.fromkeys(("chatml", "qwen_25", "qwen3", "qwen3_5"), _CHATML),
    "llama3": "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
}
_SHAREGPT = {"role_tag": "from", "content_tag": "value", "user_tag": "human",
             "assistant_tag": "gpt", "system_tag": "system", "observation_tag": "observation",
             "function_tag": "function_call"}  # fmt: skip
_OPENAI = _SHAREGPT | {"role_tag": "role", "content_tag": "content", "user_tag": "user",
                       "assistant_tag": "assistant", "observation_tag": "tool"}  # fmt: skip


class _NotHereError(Exception):
    """Why a data set cannot be described."""


def sets(key: str) -> Callable[[Any, Others], Outcome | list[Outcome]]:
    """The data sets of `dataset` or `eval_dataset`, under `key`."""

    def make(value: Any, others: Others) -> Outcome | list[Outcome]:
        notes: list[Outcome] = []
        if others.get("stage") in ("rm", "ppo"):  # refused as a whole
            return {}
        try:
            info = _info(str(others.get("dataset_dir") or "data"))
            found = [_described(name, info, others, notes) for name in names(value)]
        except _NotHereError as error:
            return Refused(str(error), instead=key)
        if key == "test_datasets":
            found = [{"split": "train"} | item for item in found]
        return [{key: found}, *dict.fromkeys(notes)]

    return make


# How several sets are trained, and where a mixture of them ends.
_MIXED = {"interleave_under": FIRST_EXHAUSTED, "interleave_over": ALL_EXHAUSTED}


def mixed(name: str, others: Others) -> Outcome:
    """One after the other, or each in its share: that of `interleave_probs`, or equal ones."""
    if name not in _MIXED:
        return {} if name == "concat" else Refused(f"{name} is none of concat, {', '.join(_MIXED)}")
    shares = str(others.get("interleave_probs") or "").strip("[]")
    try:
        weights = [float(share) for share in names(shares)]
    except ValueError:
        return Refused(f"the interleave_probs {shares} are no numbers")
    weights = weights or [1] * len(names(others.get("dataset")))
    return {STRATEGY: _MIXED[name], **({WEIGHTS: weights} if len(weights) > 1 else {})}


def _info(folder: str) -> tuple[str, Mapping[str, Any] | None]:
    """The folder and what its file says; None where every name is the Hub's."""
    if folder == "ONLINE":
        return folder, None
    if folder.startswith("REMOTE:"):
        raise _NotHereError(
            f"{_INFO} of {folder} is not read; download it, or set AXOLOTL_DATASETS"
        )
    path = f"{folder}/{_INFO}"
    found, wrong = documents.read_if_named(path if is_here(path) else None)
    if wrong:
        raise _NotHereError(wrong)
    return folder, found


def _described(
    name: str, info: tuple[str, Mapping[str, Any] | None], others: Others, notes: list[Outcome]
) -> dict[str, Any]:
    folder, described = info
    if described is None or (name not in described and ("/" in name or is_here(name))):
        return {"path": name}
    said = described.get(name)
    if not isinstance(said, Mapping):
        raise _NotHereError(
            f"{name} is not in {folder}/{_INFO}, which says where it lies and how it reads; "
            "mount that folder, or set AXOLOTL_DATASETS"
        )
    return _place(name, folder, said) | _reading(name, said, others, notes)


def _place(name: str, folder: str, said: Mapping[str, Any]) -> dict[str, Any]:
    if path := said.get("hf_hub_url"):
        place = {"path": path}
    elif path := said.get("file_name"):
        place = {"path": f"{folder}/{path}"}
    else:
        raise _NotHereError(f"{name} lies neither in a file nor on Hugging Face's Hub")
    if subset := said.get("subset"):
        place["name"] = subset
    split, rows = said.get("split", "train"), said.get("num_samples")
    if rows or split != "train":
        place["split"] = f"{split}[:{rows}]" if rows else split
    return place


def _reading(
    name: str, said: Mapping[str, Any], others: Others, notes: list[Outcome]
) -> dict[str, Any]:
    """How the rows read, by the stage and the format."""
    columns: Mapping[str, Any] = said.get("columns") or {}
    if seen := [kind for kind in ("images", "videos", "audios") if columns.get(kind)]:
        raise _NotHereError(
            f"{name} has {seen[0]}; describe it in AXOLOTL_DATASETS with AXOLOTL_PROCESSOR_TYPE"
        )
    if others.get("stage") == "kto":
        raise _NotHereError(
            f"{name} reads as no type of Axolotl's; give prompt, completion and label, and the "
            "type user_defined.default, in AXOLOTL_DATASETS"
        )
    if others.get("stage") == "pt":
        return {"type": "completion", "field": columns.get("prompt", "text")}
    layout = said.get("formatting", "alpaca")
    if layout == "alpaca":
        return _instructions(columns, bool(said.get("ranking")), others, notes)
    tags = (_OPENAI if layout == "openai" else _SHAREGPT) | (said.get("tags") or {})
    return _messages(columns, bool(said.get("ranking")), tags)


def _instructions(
    columns: Mapping[str, Any], ranked: bool, others: Others, notes: list[Outcome]
) -> dict[str, Any]:
    """Columns of questions and answers, in one turn of the template."""
    turn = _TURNS.get(TEMPLATES.get(str(others.get("template")), ""))
    prompt, query = columns.get("prompt", "instruction"), columns.get("query", "input")
    if ranked:
        return {
            "type": {
                "field_prompt": prompt,
                "field_chosen": columns.get("chosen", "chosen"),
                "field_rejected": columns.get("rejected", "rejected"),
                **({"prompt_format": turn.format("{prompt}")} if turn else {}),
            }
        }
    if turn is None:
        notes.append(Noted("rows of instructions are laid out as Alpaca's, in no chat template"))
        turn = "### Instruction:\n{}\n\n### Response:\n"
    return {
        "type": {
            "field_instruction": prompt,
            "field_input": query,
            "field_output": columns.get("response", "output"),
            "format": turn.format("{instruction}\n{input}"),
            "no_input_format": turn.format("{instruction}"),
        }
    }


def _messages(columns: Mapping[str, Any], ranked: bool, tags: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "chat_template.default" if ranked else "chat_template",
        "field_messages": columns.get("messages", "conversations"),
        "message_property_mappings": {"role": tags["role_tag"], "content": tags["content_tag"]},
        "roles": {
            "user": [tags["user_tag"]],
            "assistant": [tags["assistant_tag"], tags["function_tag"]],
            "system": [tags["system_tag"]],
            "tool": [tags["observation_tag"]],
        },
    }
    if ranked:
        found["field_chosen"] = columns.get("chosen", "chosen")
        found["field_rejected"] = columns.get("rejected", "rejected")
    if tools := columns.get("tools"):
        found["field_tools"] = tools
    return found

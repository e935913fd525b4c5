"""Lays prompts out as the run's data was, up to where an answer begins.

A chat goes through the trained template. For any other type Axolotl lays out a row of its
own with an answer in it, and what stands before the answer's first token is the prompt.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from envtune.engine.evaluate.losses import IGNORED
from envtune.errors import Exit, Problem, Refused
from envtune.resolve.data import ROWS
from envtune.settings.prompts import Prompt

# Stands for the answer. Vocabularies have it with the space before it as one token, which then
# is the answer's, as it was in training.
_ANSWER = "a"
_CHAT, _TEXT = "chat_template", "completion"
_COLUMN = re.compile(r"\{\{\s*(.+?)\s*\}\}")


def encode(prompts: Sequence[Prompt], cfg: Any, tokenizer: Any) -> list[list[int]]:
    """The token ids of each prompt. Raises Refused."""
    return [_encode(prompt, cfg, tokenizer) for prompt in prompts]


def _encode(prompt: Prompt, cfg: Any, tokenizer: Any) -> list[int]:
    dataset = cfg.datasets[0] if cfg.datasets else None
    kind = _kind(cfg, dataset)
    if kind == _CHAT:
        return _chat(prompt, tokenizer)
    prompt = _one_turn(prompt, kind)
    if kind == _TEXT:
        ids: list[int] = tokenizer(prompt.chat[-1]["content"])["input_ids"]
        return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids
    return _before_answer(_row(prompt, cfg, dataset), cfg, dataset, tokenizer)


def _kind(cfg: Any, dataset: Any) -> str:
    """The type of the data: a chat, plain text, or one that asks and answers."""
    kind = str((dataset and dataset.type) or _TEXT)
    if cfg.rl or kind.startswith((_CHAT, "messages")):
        return _CHAT
    marked = kind == ROWS and (cfg.response_template or dataset.input_format)
    plain = kind.startswith((_TEXT, "pretrain")) or kind == ROWS
    return _TEXT if plain and not marked else kind


def _one_turn(prompt: Prompt, kind: str) -> Prompt:
    """A prompt for data that has an instruction, and no chats."""
    if not prompt.messages:
        return prompt
    *before, last = prompt.messages
    if [message["role"] for message in before] not in ([], ["system"]):
        raise _refused(f"data of type {kind} has no chats of several turns")
    return Prompt(last["content"], system=before[0]["content"] if before else "")


def _refused(what: str) -> Refused:
    return Refused([Problem("", f"a prompt cannot be laid out: {what}", Exit.DATA)])


def _chat(prompt: Prompt, tokenizer: Any) -> list[int]:
    from jinja2 import TemplateError

    if tokenizer.chat_template is None:
        raise _refused("the tokenizer has no chat template; set AXOLOTL_CHAT_TEMPLATE")
    try:
        laid_out = tokenizer.apply_chat_template(
            prompt.chat, add_generation_prompt=True, return_dict=True
        )
    except TemplateError as error:
        raise _refused(f"the chat template refuses it: {error}") from None
    ids: list[int] = laid_out["input_ids"]
    return ids


def _row(prompt: Prompt, cfg: Any, dataset: Any) -> dict[str, str]:
    """A row under the names that the type may look up, with an answer."""
    asked = dict.fromkeys(("instruction", "question", "prompt", "article"), prompt.instruction)
    answer = dict.fromkeys(("output", "response", "answer", "completion", "summary"), _ANSWER)
    row = {**asked, **answer, "input": prompt.input, "system": prompt.system}
    if isinstance(dataset.type, Mapping):
        named = {
            "field_instruction": prompt.instruction, "field_input": prompt.input,
            "field_system": prompt.system, "field_output": _ANSWER,
        }  # fmt: skip
        return row | {dataset.type[f]: text for f, text in named.items() if dataset.type.get(f)}
    if dataset.type != ROWS:
        return row
    if dataset.input_format:
        return _laid_out(prompt, dataset.input_format, cfg.response_template)
    text = f"{cfg.instruction_template or ''}{prompt.chat[-1]['content']}{cfg.response_template}"
    return {dataset.field or "text": text + _ANSWER}


def _laid_out(prompt: Prompt, layout: str, mark: str | None) -> dict[str, str]:
    """A row for a layout: the last column answers, the first asks, the others go by name."""
    columns = list(dict.fromkeys(_COLUMN.findall(layout)))
    if not mark or len(columns) < 2:
        raise _refused("the data's input_format does not tell a question from an answer")
    known = {"input": prompt.input, "system": prompt.system}
    row = {name: known.get(name, "") for name in columns}
    first = next((name for name in columns if name not in known), columns[0])
    return {**row, first: prompt.instruction, columns[-1]: _ANSWER}


def _before_answer(row: dict[str, str], cfg: Any, dataset: Any, tokenizer: Any) -> list[int]:
    from axolotl.utils.data.wrappers import get_dataset_wrapper
    from datasets import Dataset
    from datasets.utils.logging import disable_progress_bar

    disable_progress_bar()
    masked = type(cfg)({**cfg, "train_on_inputs": False, "dataset_num_proc": 1})
    named = "" if isinstance(dataset.type, Mapping) else dataset.type
    base, _, style = named.partition(":")
    try:
        made, _ = get_dataset_wrapper(
            dataset, tokenizer, masked, base, Dataset.from_list([row]), style or None
        )
        encoded = made[0]
    except KeyError as missing:
        what = f"data of type {dataset.type} has a column {missing} that no prompt has"
        raise _refused(what) from None
    labels: list[int] = encoded["labels"]
    if labels[0] != IGNORED and all(label != IGNORED for label in labels):
        raise _refused(f"data of type {dataset.type} masks no question")
    start = next(i for i in range(len(labels) - 1, 0, -1) if labels[i - 1] == IGNORED != labels[i])
    ids: list[int] = encoded["input_ids"][:start]
    return ids

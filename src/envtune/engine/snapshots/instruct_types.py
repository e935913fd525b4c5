"""Derives what Axolotl's types of question and answer put around a row's columns.

Each type's own strategy is asked, with a mark in each column's place, which text it makes: so
nothing is typed by hand, and what a strategy does otherwise than these do is left out.
"""

import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping
from typing import Any

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
# No types of their own, and one that reads YAML in its columns.
_OTHERS = ("base", "pretrain", "user_defined", "creative_acr")
_STYLES = ("", ":instruct", ":chat", ":chatml", ":phi")


def instruct_types() -> dict[str, Any]:
    """`types` by name: `columns` (which of them make instruction, input, output and system, as
    format strings), `optional` columns, and `prompts` by which of system and input are not
    empty. `user_defined`: the values of a type that is a mapping where it has none."""
    from axolotl.prompt_strategies.user_defined import UserDefinedDatasetConfig

    found = {name: _read(strategy) for name, strategy in _strategies()}
    return {
        "types": {name: read for name, read in found.items() if read},
        "user_defined": dataclasses.asdict(UserDefinedDatasetConfig()),
    }


def _strategies() -> Iterator[tuple[str, Any]]:
    from axolotl import prompt_strategies
    from axolotl.utils.data import wrappers
    from axolotl.utils.dict import DictDefault

    class Tokenizer:
        """What a strategy may ask for while it is made."""

        eos_token = bos_token = ""

        def __call__(self, *_: Any, **__: Any) -> dict[str, list[int]]:
            return {"input_ids": [0, 0], "attention_mask": [1, 1]}

        def __getattr__(self, name: str) -> Any:
            return lambda *_, **__: [0]

    cfg = DictDefault({"train_on_inputs": False, "sequence_len": 1})
    for module in pkgutil.iter_modules(prompt_strategies.__path__):
        if module.ispkg or module.name in _OTHERS:
            continue
        loaded = importlib.import_module(f"axolotl.prompt_strategies.{module.name}")
        for name, _ in inspect.getmembers(loaded, inspect.isfunction):
            if re.fullmatch(r"load(_\w+)?", name) and _takes_two(getattr(loaded, name)):
                short = module.name + ("" if name == "load" else f".{name}")
                yield short, getattr(loaded, name)(Tokenizer(), cfg)
    wrappers.wrap_dataset_for_tokenized_prompt = lambda strategy, *_, **__: strategy
    for base, handler in wrappers.DATASET_HANDLERS.items():
        for style in _STYLES:
            yield base + style, handler(style[1:] or None, Tokenizer(), cfg, None, {})[0]


def _takes_two(load: Any) -> bool:
    needed = [
        parameter
        for parameter in inspect.signature(load).parameters.values()
        if parameter.default is inspect.Parameter.empty
    ]
    return [parameter.name for parameter in needed] == ["tokenizer", "cfg"]


class _Row(dict[str, str]):
    """Has each column that is asked for, or none of those that may be missing."""

    def __init__(self, *, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.optional: set[str] = set()

    def __getitem__(self, key: str) -> str:
        return f"{_OPEN}{key}{_CLOSE}"

    def __contains__(self, key: object) -> bool:
        self.optional.add(str(key))
        return self.whole


def _read(strategy: Any) -> dict[str, Any] | None:
    """What a strategy makes of marks, or None where it does more than lay out two texts."""
    from axolotl import prompt_tokenizers
    from axolotl.prompt_strategies import alpaca_w_system

    plain = prompt_tokenizers.InstructionPromptTokenizingStrategy
    named = alpaca_w_system.InstructionWSystemPromptTokenizingStrategy
    kind, asked = type(strategy), (plain.tokenize_prompt, named.tokenize_prompt)
    if not isinstance(strategy, prompt_tokenizers.PromptTokenizingStrategy):
        return None
    if kind.tokenize_prompt not in asked or kind._tokenize is not plain._tokenize:
        return None
    row, bare = _Row(whole=True), _Row(whole=False)
    texts = strategy.parse_instruction_fields(row)
    columns = ("instruction", "input", "output", "system")[: len(texts)]
    without = list(strategy.parse_instruction_fields(bare))
    without[1] = texts[1] if without[1] == "" else None
    if without != list(texts) or not all(_whole(text) for text in texts):
        return None
    made = dict(zip(columns, texts, strict=True))
    return {
        "columns": {name: _format(text) for name, text in made.items()},
        "optional": sorted(row.optional),
        "prompts": dict(_prompts(strategy.prompter, made)),
    }


def _whole(text: str) -> bool:
    return text.count(_OPEN) == len(_MARK.findall(text))


def _prompts(prompter: Any, columns: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Which of system and input are given, and the prompt then. What is always empty is not."""
    build = prompter.build_prompt_w_system if "system" in columns else prompter.build_prompt
    told = [name for name in ("system", "input") if columns.get(name)]
    for given in ((), *((name,) for name in told), tuple(told)):
        part = {
            name: f"{_OPEN}{name}{_CLOSE}" if name in (*given, "instruction") else ""
            for name in ("system", "instruction", "input")
            if name in columns
        }
        yield " ".join(given), _format(next(iter(build(*part.values()))))


def _format(text: str) -> str:
    """A text with marks as a format string."""
    return _MARK.sub(r"{\1}", text.replace("{", "{{").replace("}", "}}"))

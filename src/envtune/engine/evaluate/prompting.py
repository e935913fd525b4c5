"""Lays prompts out as the run's data was, up to where an answer begins: by the run's layout, which
its server has too. Text that was trained as it is, is asked as it is.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from envtune.artifacts.layouts import Told
from envtune.engine.layouts import found
from envtune.engine.layouts.layout import INPUT, Layout
from envtune.errors import Exit, Problem, Refused
from envtune.settings.prompts import Prompt


def encode(
    prompts: Sequence[Prompt], cfg: Any, tokenizer: Any, told: Told | None = None
) -> list[list[int]]:
    """The token ids of each prompt, in the layout that the run has `told`. Raises Refused."""
    layout = _layout(cfg, tokenizer, told) if prompts else None
    return [_encode(prompt, layout, tokenizer) for prompt in prompts]


def _layout(cfg: Any, tokenizer: Any, told: Told | None) -> Layout | None:
    """The layout to ask in, or None for text: the run's, or the first data set's."""
    if told:
        layout = Layout(
            told.name, told.template, told.reason, columns=tuple(told.columns), system=told.system
        )
    elif cfg.rl:
        layout = Layout("chat", tokenizer.chat_template or "", system=True)
    elif cfg.datasets:
        layout = found.of(cfg, cfg.datasets[0], tokenizer).layout
    else:
        return None
    if layout.reason and layout.reason != found.RAW:
        raise _refused(f"data of type {layout.name}: {layout.reason}")
    return None if layout.reason else layout


def _refused(what: str) -> Refused:
    return Refused([Problem("", f"a prompt cannot be laid out: {what}", Exit.DATA)])


def _encode(prompt: Prompt, layout: Layout | None, tokenizer: Any) -> list[int]:
    if layout is None:
        ids: list[int] = tokenizer(prompt.chat[-1]["content"])["input_ids"]
        return ids[:-1] if ids[-1:] == [tokenizer.eos_token_id] else ids
    text = _text(prompt, layout, tokenizer)
    made: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return made


def _text(prompt: Prompt, layout: Layout, tokenizer: Any) -> str:
    from jinja2 import TemplateError

    if not layout.template:
        raise _refused("the tokenizer has no chat template; set AXOLOTL_CHAT_TEMPLATE")
    messages, more = _asked(prompt, layout)
    try:
        laid_out: str = tokenizer.apply_chat_template(
            messages, chat_template=layout.template, tokenize=False, add_generation_prompt=True,
            **more,
        )  # fmt: skip
    except TemplateError as error:
        raise _refused(f"the layout of {layout.name} refuses it: {error}") from None
    return laid_out


def _asked(prompt: Prompt, layout: Layout) -> tuple[list[dict[str, str]], dict[str, str]]:
    """A prompt as messages, and what it says besides: the input goes where the layout has it."""
    more = dict.fromkeys(layout.columns, "")
    if prompt.messages:
        return prompt.chat, more
    apart = INPUT in layout.columns
    told = replace(prompt, input="" if apart else prompt.input,
                   system=prompt.system if layout.system else "")  # fmt: skip
    return told.chat, more | ({INPUT: prompt.input} if apart else {})

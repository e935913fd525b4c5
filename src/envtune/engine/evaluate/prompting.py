"""Lays prompts out as the run's data was, up to where an answer begins: by the run's layout, which
its server has too. Text that was trained as it is, is asked as it is.
"""

from collections.abc import Mapping, Sequence
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
    asked_in = layout(cfg, tokenizer, told) if prompts else None
    return [ids(*_asked(prompt, asked_in), asked_in, tokenizer) for prompt in prompts]


def layout(cfg: Any, tokenizer: Any, told: Told | None) -> Layout | None:
    """The layout to ask in, or None for text: the run's, or the first data set's. Raises Refused
    where its rows cannot be asked for."""
    if told:
        made = Layout(
            told.name, told.template, told.reason, columns=tuple(told.columns), system=told.system
        )
    elif cfg.rl:
        made = Layout("chat", tokenizer.chat_template or "", system=True)
    elif cfg.datasets:
        made = found.of(cfg, cfg.datasets[0], tokenizer).layout
    else:
        return None
    if made.reason and made.reason != found.RAW:
        raise _refused(f"data of type {made.name}: {made.reason}")
    return None if made.reason else made


def _refused(what: str) -> Refused:
    return Refused([Problem("", f"a prompt cannot be laid out: {what}", Exit.DATA)])


def ids(
    messages: Sequence[Mapping[str, str]],
    more: Mapping[str, str],
    layout: Layout | None,
    tokenizer: Any,
) -> list[int]:
    """The token ids of a chat up to its answer, `more` being what its layout names besides; without
    a layout those of the last message as text. Raises Refused."""
    if layout is None:
        made: list[int] = tokenizer(messages[-1]["content"])["input_ids"]
        return made[:-1] if made[-1:] == [tokenizer.eos_token_id] else made
    text = _text(messages, more, layout, tokenizer)
    laid_out: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return laid_out


def _text(
    messages: Sequence[Mapping[str, str]], more: Mapping[str, str], layout: Layout, tokenizer: Any
) -> str:
    from jinja2 import TemplateError

    if not layout.template:
        raise _refused("the tokenizer has no chat template; set AXOLOTL_CHAT_TEMPLATE")
    try:
        laid_out: str = tokenizer.apply_chat_template(
            messages, chat_template=layout.template, tokenize=False, add_generation_prompt=True,
            **more,
        )  # fmt: skip
    except TemplateError as error:
        raise _refused(f"the layout of {layout.name} refuses it: {error}") from None
    return laid_out


def _asked(prompt: Prompt, layout: Layout | None) -> tuple[list[dict[str, str]], dict[str, str]]:
    """A prompt as messages, and what it says besides: the input goes where the layout has it."""
    if layout is None:
        return prompt.chat, {}
    more = dict.fromkeys(layout.columns, "")
    if prompt.messages:
        return prompt.chat, more
    apart = INPUT in layout.columns
    told = replace(prompt, input="" if apart else prompt.input,
                   system=prompt.system if layout.system else "")  # fmt: skip
    return told.chat, more | ({INPUT: prompt.input} if apart else {})

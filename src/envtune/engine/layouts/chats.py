"""The layout of chats: the trained template, with the beginning of an answer as training had it."""

from collections.abc import Mapping, Sequence
from typing import Any

from envtune.engine.layouts.layout import Layout, with_defaults, with_generation
from envtune.engine.tokens import never_cut, one

# Stand for what is asked and what is answered.
_ASKED, _ANSWERED = "\ue0f0asked", "\ue0f0answered"
_CHAT = [{"role": "user", "content": _ASKED}, {"role": "assistant", "content": _ANSWERED}]


def of(name: str, template: str, kwargs: Mapping[str, Any], tokenizer: Any, eot: Any) -> Layout:
    """The layout of a trained chat template. `eot`: the ends of turn that were said."""
    from jinja2 import TemplateError

    ends = [tokenizer.eos_token, *(eot or ())]
    try:
        whole, asked = (
            _rendered(tokenizer, template, kwargs, _CHAT[:turns], asking=False) for turns in (2, 1)
        )
        opened = _rendered(tokenizer, template, kwargs, _CHAT[:1], asking=True)
    except (TemplateError, TypeError, ValueError):  # it wants another conversation than that
        return Layout(name, with_defaults(template, kwargs), stops=_ids(tokenizer, ends))
    before, _, after = whole.partition(_ANSWERED)
    # A chat is tokenised as a whole: a space before the answer is of its first word's token.
    begins = before.rstrip(" ")
    if begins != opened and begins.startswith(asked):
        template = with_generation(template, begins[len(asked) :])
    return Layout(
        name=name,
        template=with_defaults(template, kwargs),
        begins=before.rpartition(_ASKED)[2],
        stops=_ids(tokenizer, [*ends, _first(tokenizer, after)]),
        system=True,
    )


def _rendered(
    tokenizer: Any, template: str, kwargs: Mapping[str, Any], chat: Any, *, asking: bool
) -> str:
    text: str = tokenizer.apply_chat_template(
        chat, tokenize=False, chat_template=template, add_generation_prompt=asking, **kwargs
    )
    return text


def _first(tokenizer: Any, text: str) -> str:
    """The token that a text begins with, as one that is never cut, or ""."""
    found = [word for word in never_cut(tokenizer) if text.lstrip().startswith(word)]
    return max(found, key=len, default="")


def _ids(tokenizer: Any, words: Sequence[str | None]) -> tuple[int, ...]:
    found = (one(tokenizer, word) for word in words if word)
    return tuple(dict.fromkeys(i for i in found if i is not None))

"""How a chat template ends a turn, and whether training sees it: Axolotl trains the tokenizer's
own end of a text after an answer, and another token only where `eot_tokens` names it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envtune.resolve import data
from envtune.resolve.config import Choice, Chosen, Facts
from envtune.resolve.facts import TokenizerFacts

# Axolotl 0.19's templates by what they write after an answer; the others write the tokenizer's
# own end of a text.
_BY_END = {
    "<|im_end|>": (
        "chatml", "falcon_h1", "nemotron_h", "phi_4", "qwen2_vl", "qwen_25", "qwen3", "qwen3_5",
    ),
    "<|eot_id|>": ("llama3", "llama3_2_vision"),
    "<|eot|>": ("llama4",),
    "<end_of_turn>": ("gemma", "gemma3", "gemma3n"),
    "<turn|>": ("gemma4", "gemma4_unified"),
    "<|END_OF_TURN_TOKEN|>": ("aya", "cohere", "command_a", "command_a_rag", "command_a_tool_use"),
    "<|end|>": ("phi_3", "phi_35"),
    "[|endofturn|]": ("exaone", "exaone4"),
    "<|eom|>": ("jamba",),
    "<\uff5cend\u2581of\u2581sentence\uff5c>": ("deepseek_v3",),
}  # fmt: skip
ENDS = {template: end for end, templates in _BY_END.items() for template in templates}
DEFAULT = "tokenizer_default"
# What a user says about the ends of turns, in the configuration or of a data set.
SAID = ("eot_tokens", "train_on_inputs", "tokenizer_use_mistral_common")
_SAID_OF_SET = ("train_on_eos", "train_on_eot", "roles_to_train", "chat_template_jinja")


@dataclass(frozen=True)
class Turn:
    """A template that ends a turn with another text than the tokenizer's `eos`, and whether the
    tokenizer has it as one token."""

    template: str
    end: str
    eos: str
    known: bool


def untrained(chosen: Mapping[str, Any], facts: Facts) -> Iterator[Turn]:
    """The ends of turns that no label would hold, where nobody has said otherwise."""
    tokenizer = facts.tokenizer
    if tokenizer is None or any(chosen.get(key) for key in SAID):
        return
    eos, words = _with_tokens(tokenizer, chosen)
    for template in dict.fromkeys(_templates(chosen, facts)):
        end = _end(template, tokenizer, eos, words)
        if end and end != eos:
            yield Turn(template, end, eos, end in words)


def _templates(chosen: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    whole = chosen.get("chat_template") or DEFAULT
    for item, seen in zip(chosen.get("datasets") or (), facts.data, strict=False):
        named = {**item, "chat_template": None}
        if data.is_chat(named, seen) and not any(item.get(key) for key in _SAID_OF_SET):
            yield str(item.get("chat_template") or whole)


def _with_tokens(
    tokenizer: TokenizerFacts, chosen: Mapping[str, Any]
) -> tuple[str, frozenset[str]]:
    """The end of a text, and what is never cut, with what the configuration adds."""
    special = chosen.get("special_tokens") or {}
    more = [word for word in special.values() if isinstance(word, str)]
    more += [w for words in special.values() if isinstance(words, list) for w in words]
    words = tokenizer.words | {*more, *(chosen.get("tokens") or ())}
    return str(special.get("eos_token") or tokenizer.eos), frozenset(words)


def _end(template: str, tokenizer: TokenizerFacts, eos: str, words: frozenset[str]) -> str:
    """What a template ends a turn with, or "" where it is the end of a text or not known."""
    if template.startswith(DEFAULT) and tokenizer.template:
        source = tokenizer.template
        if "eos_token" in source or (eos and eos in source):
            return ""
        found = [end for end in _BY_END if end in source and end in words]
        return min(found, key=source.index, default="")
    return ENDS.get(template.removeprefix(f"{DEFAULT}_fallback_"), "")


def end_of_turn(facts: Facts, chosen: Chosen) -> Choice | None:
    turns = [turn for turn in untrained(chosen, facts) if turn.known]
    if not turns:
        return None
    told = turns[0]
    reason = f"{told.template} ends a turn with {told.end}, the tokenizer a text with {told.eos}"
    return Choice(list(dict.fromkeys(turn.end for turn in turns)), reason)


RULES = (("eot_tokens", end_of_turn),)

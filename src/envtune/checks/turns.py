"""Whether an answer learns to end, and whose layout a chat is to have."""

from collections.abc import Iterator

from envtune.artifacts import layouts
from envtune.errors import Exit, Problem
from envtune.resolve import turns
from envtune.resolve.config import Facts
from envtune.settings.typed import Settings


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    yield from _endless(settings, facts)
    yield from _unnamed(settings)


def _unnamed(settings: Settings) -> Iterator[Problem]:
    """A layout of a data set that is not there."""
    wanted, given = settings.own.get("SFT_CHAT_LAYOUT"), settings.axolotl.get("datasets")
    items = given.value if given and isinstance(given.value, list) else ()
    pairs = [(str(item.get("path")), item.get("type")) for item in items]
    if wanted is None or not wanted.value or not pairs:
        return
    if not any(layouts.is_named(wanted.value, n, *pair) for n, pair in enumerate(pairs)):
        there = ", ".join(f"{n} ({path})" for n, (path, _) in enumerate(pairs))
        yield Problem(wanted.name, f"{wanted.value} is none of the data sets: {there}")


def _endless(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Templates that end a turn with a text that the tokenizer has not as one token."""
    if settings.passes_through:
        return
    chosen = {key: setting.value for key, setting in settings.axolotl.items()}
    if chosen.get("rl"):
        return
    setting = settings.axolotl.get("chat_template")
    for turn in turns.untrained(chosen, facts):
        if not turn.known:
            what = (
                f"{turn.template} ends a turn with {turn.end}, which the tokenizer would cut into "
                f"pieces (it ends a text with {turn.eos or 'nothing'}): no answer would learn to "
                "stop; choose a template that ends with the tokenizer's own, as alpaca, mistral_v1 "
                "and metharme do, or add the token: AXOLOTL_SPECIAL_TOKENS__EOS_TOKEN="
                f"{turn.end}, with embed_tokens and lm_head in AXOLOTL_LORA_MODULES_TO_SAVE"
            )
            yield Problem(setting.name if setting else "AXOLOTL_CHAT_TEMPLATE", what, Exit.DATA)

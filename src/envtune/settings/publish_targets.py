"""Where a result is published to, as the user names it. Pure.

SFT_PUSH_TO is a list of places. Axolotl's hub_model_id is one of them here: Axolotl would
push every checkpoint while it trains, before anything was checked.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

from envtune.errors import Problem
from envtune.settings.typed import Setting, Settings

PUSH_TO, WHAT = "SFT_PUSH_TO", "SFT_PUSH_WHAT"
_HUB = re.compile(r"(?:hf://)?([\w.-]+(?:/[\w.-]+)?)(?:@([\w./-]+))?")
_STORE = re.compile(r"(?:(?:s3|gs|gcs|az|abfs|abfss)://[\w.-]+(?:/.*)?|file:///.+)")
# What an example has in the place of a name.
_BLANK = re.compile(r"<[^<>]*>")
_ALLOWED = "org/name of the Hub, s3://bucket/prefix, gs://bucket/prefix, az://container/prefix"
# Axolotl's keys of the Hub, which never reach it.
KEYS = ("hub_model_id", "hub_strategy", "hub_revision")


@dataclass(frozen=True)
class Target:
    """One place. `name` is the variable that asks for it; a repository of the Hub has its
    `id`, and a `revision` where it is not the main one; anything else is a `url`."""

    name: str
    url: str
    id: str = ""
    revision: str | None = None


def parse(name: str, text: str) -> Target:
    """Raises ValueError where a text names no place."""
    if _STORE.fullmatch(text):
        return Target(name, text.rstrip("/"))
    if match := _HUB.fullmatch(text):
        return Target(name, f"hf://{text.removeprefix('hf://')}", match[1], match[2])
    raise ValueError(f"{text!r} is no place to publish to; allowed: {_ALLOWED}, file:///folder")


def wanted(settings: Settings) -> list[Target]:
    """Where the settings publish to; without problems in them."""
    setting = settings.own.get(PUSH_TO)
    return [parse(setting.name, text) for text in setting.value or ()] if setting else []


def translated(settings: Settings) -> Settings:
    """`settings` with hub_model_id and its like as a place to publish to."""
    axolotl = {key: s for key, s in settings.axolotl.items() if key not in KEYS}
    model, strategy, revision = (settings.axolotl.get(key) for key in KEYS)
    notes = settings.notes
    if strategy and strategy.value not in (None, "end"):
        notes = (*notes, f"{strategy.name}: no checkpoint is pushed; the checked result is, once")
    own = dict(settings.own)
    if _is_blank(model):
        notes = (*notes, f"{model.name}: {model.value} is to be filled in; nothing is published")
    elif model and model.value:
        at = f"@{revision.value}" if revision and revision.value else ""
        own[PUSH_TO] = replace(model, value=[f"hf://{model.value}{at}"], weaker=None)
        notes = (*notes, f"{model.name}: taken as {PUSH_TO}={own[PUSH_TO].value[0]}")
    return replace(settings, axolotl=axolotl, own=own, notes=notes)


def problems(settings: Settings) -> Iterator[Problem]:
    """What names no place, and what contradicts the rest. `settings` as they were given."""
    model, given = settings.axolotl.get(KEYS[0]), settings.own.get(PUSH_TO)
    if model and model.value and given and given.value:
        yield Problem(model.name, f"is set and so is {given.name}; name every place in the latter")
    for name, text in [*_texts(None if _is_blank(model) else model), *_texts(given)]:
        try:
            parse(name, text)
        except ValueError as error:
            yield Problem(name, str(error))
    yield from _never_there(settings)


def _is_blank(model: Setting | None) -> TypeGuard[Setting]:
    return (
        model is not None and isinstance(model.value, str) and bool(_BLANK.fullmatch(model.value))
    )


def _texts(setting: Setting | None) -> list[tuple[str, str]]:
    value: Any = setting.value if setting else None
    texts: Sequence[str] = [value] if isinstance(value, str) else value or ()
    return [(setting.name, text) for text in texts] if setting else []


def _never_there(settings: Settings) -> Iterator[Problem]:
    """What this configuration cannot make."""
    what, adapter = settings.get(WHAT), settings.axolotl.get("adapter")
    whole = adapter is not None and not adapter.value
    if what in ("adapter", "serving", "merged") and whole:
        yield Problem(WHAT, f"is {what} and all weights train; unset it, or set it to model")
    if what == "model" and not whole and not settings.passes_through:
        yield Problem(WHAT, "is model and an adapter trains; unset it, or set AXOLOTL_ADAPTER=null")

"""Whether what is asked of the rows can be done, by the settings alone."""

from collections.abc import Iterator
from typing import Any

from envtune.errors import Problem
from envtune.settings.own import OWN
from envtune.settings.own.preparation import DECISIVE, WEIGHTS
from envtune.settings.typed import Settings

_BOUNDS = ("PROMPT", "RESPONSE")


def problems(settings: Settings) -> Iterator[Problem]:
    yield from _weights(settings)
    for part in _BOUNDS:
        least, most = f"SFT_MIN_{part}_LENGTH", f"SFT_MAX_{part}_LENGTH"
        if (settings.get(most) is not None) and (settings.get(least) or 0) > settings.get(most):
            what = f"{settings.get(least)} is more than {settings.own[most].name} takes"
            yield Problem(settings.own[least].name, f"{what}, {settings.get(most)}; no row fits")
    yield from _unread(settings)


def _weights(settings: Settings) -> Iterator[Problem]:
    weights, sets = settings.get(WEIGHTS), _items(settings)
    if weights and sets and len(weights) != len(sets):
        paths = ", ".join(str(one.get("path")) for one in sets if isinstance(one, dict))
        what = f"has {len(weights)} weights for {len(sets)} data sets: {paths}"
        yield Problem(settings.own[WEIGHTS].name, f"{what}; give one for each, in their order")


def _unread(settings: Settings) -> Iterator[Problem]:
    """Rows that are not looked at one by one cannot be chosen."""
    why = (
        "are streamed" if _on(settings, "pretraining_dataset") or _on(settings, "streaming") else ""
    )
    why = why or ("are of a training that is passed on as it is" if settings.passes_through else "")
    for name in DECISIVE if why else ():
        setting = settings.own.get(name)
        if setting and setting.value and setting.value != OWN[name].default:
            yield Problem(setting.name, f"cannot be obeyed: the rows {why}; unset it")


def _on(settings: Settings, key: str) -> bool:
    return key in settings.axolotl and bool(settings.axolotl[key].value)


def _items(settings: Settings) -> list[Any]:
    value = settings.axolotl["datasets"].value if "datasets" in settings.axolotl else None
    return value if isinstance(value, list) else []

"""Where a training begins: SFT_RESUME_FROM, beside Axolotl's own key for a checkpoint's path."""

from collections.abc import Iterator
from dataclasses import replace

from envtune.errors import Problem
from envtune.settings.own.training import LATEST, OFF, RESUME_FROM
from envtune.settings.typed import Setting, Settings

_KEY = "resume_from_checkpoint"
# The words that others have for the two, on an environment's and on YAML's side.
_WORDS = {LATEST: LATEST, "true": LATEST, "auto": LATEST, OFF: OFF, "false": OFF, "no": OFF}


def translated(settings: Settings) -> Settings:
    """A path under Axolotl's key, so that all that is said of one is said of both."""
    given = settings.own.get(RESUME_FROM)
    if given is None:
        return settings
    word = _word(given)
    own = {**settings.own, RESUME_FROM: replace(given, value=word or LATEST)}
    axolotl = dict(settings.axolotl)
    if not word:
        axolotl.setdefault(_KEY, given)
    return replace(settings, own=own, axolotl=axolotl)


def problems(settings: Settings) -> Iterator[Problem]:
    """Two places to begin at."""
    given, other = settings.own.get(RESUME_FROM), settings.axolotl.get(_KEY)
    if given is None or other is None or not other.value or _word(given) == LATEST:
        return
    if given.value != other.value:
        yield Problem(given.name, f"is {given.value} and {other.name} is {other.value}; unset one")


def _word(given: Setting) -> str:
    """latest or off; empty for a path."""
    return _WORDS.get(str(given.value).strip().lower(), "" if given.value else LATEST)

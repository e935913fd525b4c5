"""Which failure no restart can mend. Pure.

A platform restarts what has ended, for ever and at a price. What the user has to change is
not tried again; what may pass is tried until it fails at the same place too often.
"""

from collections.abc import Mapping
from typing import Any

from envtune.errors import Exit

# Starts that may fail without a new checkpoint between them.
_STARTS = {Exit.BUG: 2, Exit.DISK: 5, Exit.NETWORK: 5, Exit.HARDWARE: 5}
# Ends that are no failure, or that have a count of their own.
_FREE = (Exit.DONE, Exit.STOPPED, Exit.INTERRUPTED, Exit.BUDGET)

# The outcome of a run's last start as run.json keeps it: exit, message, at, place, times.
Outcome = dict[str, Any]


def outcome(before: Mapping[str, Any], exit_: Exit, message: str, at: str, place: str) -> Outcome:
    """The record of an end; `before` is that of the last start.

    `at` is the newest checkpoint and `place` the container: another one may be larger.
    """
    now = {"exit": int(exit_), "at": at, "place": place}
    again = {name: before.get(name) for name in now} == now
    return {**now, "message": message, "times": int(before["times"]) + 1 if again else 1}


def is_open(last: Mapping[str, Any]) -> bool:
    """Whether a run that ended like this is not to be tried again by a restart there."""
    exit_ = Exit(last.get("exit", Exit.DONE))
    return exit_ not in _FREE and int(last.get("times", 1)) >= _STARTS.get(exit_, 1)

"""Which rank was lost: as torchrun tells it in its last lines, or another node's supervisor."""

import re
import signal
import time
from collections.abc import Callable, Sequence

from envtune.channel import Outcome
from envtune.errors import Exit
from envtune.failures.table import recognise

# What an outcome's error begins with where another node tells of a rank of its own.
LOST = "RankLost"
# How long another node may take to tell, and between two looks, seconds.
_PATIENCE, _LOOK = 5.0, 0.2

# A rank of torchrun's table of failures: its number, and the signal that ended it.
_KILLED = re.compile(
    r"rank +: (?P<rank>\d+) \(local_rank: \d+\)\s+"
    r"exitcode +: -(?P<signal>\d+) \(pid: (?P<pid>\d+)\)"
)
# What ends a process from outside: somebody's or the kernel's kill, or torchrun's own farewell to
# those that were left, which is no cause.
_FAREWELL = signal.SIGTERM


def lost(tail: Sequence[str]) -> str:
    """The rank that a signal has ended, and which one; nothing where none was."""
    found = [m for m in _KILLED.finditer("\n".join(tail)) if int(m["signal"]) != _FAREWELL]
    if not found:
        return ""
    first = found[-1]  # torchrun names the root cause last
    return f"rank {first['rank']} (process {first['pid']}) was ended by {_name(first['signal'])}"


def _name(number: str) -> str:
    try:
        return signal.Signals(int(number)).name
    except ValueError:
        return f"signal {number}"


def cause(outcome: Outcome, look: Callable[[], Outcome | None]) -> Outcome:
    """The outcome; of one that failed since a rank elsewhere is gone the one that tells which,
    if it comes."""
    deadline = time.monotonic() + _PATIENCE
    while _is_left(outcome) and time.monotonic() < deadline:
        time.sleep(_LOOK)
        outcome = look() or outcome
    return outcome


def _is_left(outcome: Outcome) -> bool:
    """Whether all that is known is that the link to another rank is gone."""
    if outcome.state != "failed" or outcome.error.startswith(LOST):
        return False
    failure = recognise(outcome.error)
    return failure is not None and failure.exit == Exit.HARDWARE

"""The whole table, and what an error or the end of a log tells by it."""

import re

from envtune.errors import Exit
from envtune.failures import access, data, gpus, machine, models, own
from envtune.failures.failure import Failure

# The first match counts: what is said of this machine before what others answered.
FAILURES: tuple[Failure, ...] = (
    *own.ROWS, *machine.ROWS, *gpus.ROWS, *access.ROWS, *models.ROWS, *data.ROWS,
)  # fmt: skip

# Python's words for a wrong value. Before the first step they mean the configuration, or
# the data while the data is read: the same start would fail again.
_WRONG_VALUE = re.compile(
    r"^(ValueError|KeyError|TypeError|AssertionError|FileNotFoundError|NotImplementedError|"
    r"ImportError|ModuleNotFoundError)\b"
)
_BEFORE_TRAINING = {"starting": Exit.CONFIG, "data": Exit.DATA, "model": Exit.CONFIG}


def recognise(text: str) -> Failure | None:
    """The failure that an error or a log's last lines tell of, or None."""
    return next((f for f in FAILURES if f.pattern.search(text)), None)


def wrong_value(error: str, phase: str) -> Exit | None:
    """The exit code of an exception that is the user's to mend, or None."""
    return _BEFORE_TRAINING.get(phase) if _WRONG_VALUE.match(error) else None


def gist(error: str) -> str:
    """An exception's text on one line; of a pydantic report only what it complains of."""
    error = re.sub(r"^envtune[\w.]*\.[A-Z]\w+: ", "", error)  # its row says what that is
    said = re.findall(r"(?:Value error, )?(\S[^\n]*?) \[type=", error)
    return " ".join("; ".join(said or [error]).split()).removesuffix(":")

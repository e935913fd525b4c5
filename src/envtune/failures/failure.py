"""What one row of the table is."""

import re
from dataclasses import dataclass

from envtune.errors import Exit


@dataclass(frozen=True)
class Failure:
    """A way for a child to fail. `pattern` finds it in an exception's text or in a log's last
    lines, `example` is such a text as its library words it; `cause` and `fix` are told."""

    exit: Exit
    pattern: re.Pattern[str]
    cause: str
    fix: str
    example: str


def row(exit: Exit, pattern: str, cause: str, fix: str, example: str) -> Failure:
    """A failure whose pattern looks at each line and at no case."""
    return Failure(exit, re.compile(pattern, re.IGNORECASE | re.MULTILINE), cause, fix, example)

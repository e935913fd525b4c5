"""A value that its node does not allow, and the line that tells it."""

from dataclasses import dataclass
from typing import Any

from envtune.errors import Problem

# How much of a wrong value a line repeats.
_SHOWN = 80


@dataclass
class Mismatch(Exception):
    """A value that its node does not allow. `path` is empty for the value itself."""

    path: tuple[str | int, ...]
    value: Any
    allowed: str
    hint: str = ""

    def told(self, name: str, text: str) -> Problem:
        """The line that the user reads: the name and the text as they were typed."""
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in self.path)
        shown = _short(text if not self.path else self.value)
        at = f" at {where}" if where else ""
        hint = f"; {self.hint}" if self.hint else ""
        return Problem(name, f"{shown} is not allowed{at}; allowed: {self.allowed}{hint}")


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 3] + "..."

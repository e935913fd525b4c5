"""A value that its node does not allow, and the line that tells it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from envtune.errors import Problem

# How much of a wrong value a line repeats.
_SHOWN = 80


@dataclass
class Mismatch(Exception):
    """A value that its node does not allow. `path` is empty for the value itself; `more` are
    those beside it in the same value."""

    path: tuple[str | int, ...]
    value: Any
    allowed: str
    hint: str = ""
    more: list["Mismatch"] = field(default_factory=list)

    @classmethod
    def first(cls, several: Sequence["Mismatch"]) -> "Mismatch":
        """Several as one, which holds the others."""
        flat = [one for problem in several for one in (problem, *problem.more)]
        flat[0].more = flat[1:]
        return flat[0]

    def below(self, part: str | int) -> None:
        """Sets it, and those beside it, inside an outer value."""
        for one in (self, *self.more):
            one.path = (part, *one.path)

    def lines(self, name: str, text: str) -> list[Problem]:
        """A line for each."""
        return [one.told(name, text) for one in (self, *self.more)]

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

"""What the user set, typed: the types that every later step reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from envtune.errors import Problem
from envtune.settings.own import OWN

# Axolotl's keys of RL, reward and vision trainings, which are launched and not tuned.
_UNTUNED = ("rl", "reward_model", "process_reward_model", "processor_type")

Path = tuple[str | int, ...]
# The layer of a tool's own defaults, below all that somebody set.
IMPLIED = "dialect"


@dataclass(frozen=True)
class Setting:
    """A typed value, the name as the user typed it, and the layer it came from.

    `parts` holds the names of what was set inside; `weaker` what this setting replaced.
    """

    value: Any
    name: str
    layer: str
    parts: Mapping[Path, str] = field(default_factory=dict)
    weaker: "Setting | None" = None

    def at(self, *path: str | int) -> str:
        """The name of what set the value at `path`."""
        ends = (self.parts.get(path[:length]) for length in range(len(path), 0, -1))
        return next(filter(None, ends), self.name)


@dataclass(frozen=True)
class Settings:
    """What the user set: Axolotl's keys, envtune's own, and lines to print.

    `warnings` may be wrong, `notes` only tell what was done. `problems` are those of names that
    today's keys have taken the place of.
    """

    axolotl: Mapping[str, Setting] = field(default_factory=dict)
    own: Mapping[str, Setting] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()

    def get(self, name: str) -> Any:
        """The value of one of envtune's own settings."""
        return self.own[name].value if name in self.own else OWN[name].default

    @property
    def passes_through(self) -> bool:
        """Whether this is one of Axolotl's RL or vision trainings: launched, and not tuned."""
        return any(key in self.axolotl and self.axolotl[key].value for key in _UNTUNED)

"""What may become of one name of a foreign dialect.

A table maps the foreign name to a rule. A plain text is the key that says the same: a key
of Axolotl, dotted where it lies inside (`datasets.0.path`), or one of envtune's own
settings. The other rules are here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from envtune.settings.schema import Node

FLAG: Node = {"type": "boolean"}
TEXT: Node = {"type": "string"}
NUMBER: Node = {"anyOf": [{"type": "integer"}, {"type": "number"}]}
COUNT: Node = {"type": "integer", "minimum": 1}
TEXTS: Node = {"anyOf": [{"type": "array", "items": TEXT}, TEXT, {"type": "null"}]}
ANY: Node = {}
# `no` is false in YAML 1.1.
STRATEGY: Node = {"anyOf": [TEXT, FLAG]}

# All names of one source with their plain values, in sections also under their last part: a
# rule may need a neighbour.
Others = Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """Cannot be obeyed: the reason, and what to use instead.

    `unless` holds values that ask for nothing; the upstream's own default is one too. Where
    another layer sets the key `instead`, nothing is left to refuse.
    """

    reason: str
    unless: tuple[Any, ...] = ()
    instead: str = ""


@dataclass(frozen=True)
class Noted:
    """Taken and not acted on; the user is told why. Without a reason it says nothing at all."""

    reason: str = ""


# What one value comes to: keys with their values, or one of the two above.
Outcome = Mapping[str, Any] | Noted | Refused


@dataclass(frozen=True)
class Becomes:
    """A value of the type `node`, and what `make(value, others)` makes of it."""

    node: Node
    make: Callable[[Any, Others], Outcome | list[Outcome]]


# The lines that a tool adds where its file is silent: its own names, or keys of Axolotl.
Defaults = Mapping[str, Any]
Rule = str | Becomes | Refused | Noted
Table = Mapping[str, Rule]


def prefixed(prefix: str, table: Table) -> dict[str, Rule]:
    """`table` with each name inside a section."""
    return {f"{prefix}.{name}": rule for name, rule in table.items()}


def without(table: Table, *names: str) -> dict[str, Rule]:
    """`table` less some names."""
    return {name: rule for name, rule in table.items() if name not in names}

"""Layers -> Settings: every name known, every value typed, every problem at once.

Only the keys that are set exist. A name is `AXOLOTL_<KEY>`, `AXOLOTL_<KEY>__<PATH>` for a
value inside, or one of envtune's own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from envtune import upstream
from envtune.contract import OWN
from envtune.errors import Problem, Refused
from envtune.schema import Mismatch, Node, Schema, nearest
from envtune.sources import AXOLOTL, Entry, Inputs

# Axolotl takes any text here and fails hours later, or trains at a wrong rate.
_STRICTER: dict[str, Node] = {"learning_rate": {"type": "number", "exclusiveMinimum": 0}}


@dataclass(frozen=True)
class Setting:
    """A typed value, the name as the user typed it, and the layer it came from."""

    value: Any
    name: str
    layer: str


@dataclass(frozen=True)
class Settings:
    """What the user set: Axolotl's keys, envtune's own, and warnings to print."""

    axolotl: Mapping[str, Setting] = field(default_factory=dict)
    own: Mapping[str, Setting] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def get(self, name: str) -> Any:
        """The value of one of envtune's own settings."""
        return self.own[name].value if name in self.own else OWN[name].default


def schema() -> Schema:
    """Axolotl's schema, stricter where Axolotl itself is too lenient."""
    snapshot = upstream.axolotl()
    return Schema({**snapshot["fields"], **_STRICTER}, snapshot["defs"])


def load(inputs: Inputs) -> Settings:
    """Types every entry. Raises Refused with all problems."""
    return _Loader(schema()).load(inputs)


class _Loader:
    def __init__(self, types: Schema) -> None:
        self.types = types
        self.axolotl: dict[str, Setting] = {}
        self.own: dict[str, Setting] = {}
        self.problems: list[Problem] = []
        self.unknown: list[Problem] = []

    def load(self, inputs: Inputs) -> Settings:
        for layer in inputs.layers:
            # A whole value first, so that a path can reach into it.
            for entry in sorted(layer.entries, key=lambda e: (e.name.count("__"), e.name)):
                self._take(entry, layer.name)
        for key, setting in self.axolotl.items():
            self._check_whole(key, setting)
        strict = self.own["SFT_STRICT"].value if "SFT_STRICT" in self.own else True
        if self.problems or (strict and self.unknown):
            raise Refused([*self.problems, *(self.unknown if strict else ())])
        warnings = (*inputs.notes, *(str(p) for p in self.unknown))
        return Settings(self.axolotl, self.own, warnings)

    def _take(self, entry: Entry, layer: str) -> None:
        try:
            if entry.name in OWN:
                value = self.types.parse(entry.text, OWN[entry.name].node)
                self.own[entry.name] = Setting(value, entry.name, layer)
            elif entry.name.startswith(AXOLOTL):
                self._take_axolotl(entry, layer)
            else:
                self.unknown.append(_unknown(entry.name, self.types))
        except Mismatch as problem:
            self.problems.append(explain(entry.name, problem, entry.text))

    def _take_axolotl(self, entry: Entry, layer: str) -> None:
        key, *parts = entry.name.removeprefix(AXOLOTL).lower().split("__")
        if key not in self.types.fields:
            self.unknown.append(_unknown(entry.name, self.types))
            return
        path = [int(part) if part.isdigit() else part for part in parts]
        node = self.types.at(self.types.fields[key], path)
        value = self.types.parse(entry.text, node)
        if path:
            inner = self.axolotl.get(key)
            value = _placed(inner.value if inner else None, path, value, entry.name)
        self.axolotl[key] = Setting(value, entry.name if not path else AXOLOTL + key.upper(), layer)

    def _check_whole(self, key: str, setting: Setting) -> None:
        """A value built from paths has to be allowed as a whole too."""
        if isinstance(setting.value, list | dict):
            try:
                self.types.accept(setting.value, self.types.fields[key])
            except Mismatch as problem:
                self.problems.append(explain(setting.name, problem, ""))


def _placed(whole: Any, path: list[str | int], value: Any, name: str) -> Any:
    """`whole` with `value` at `path`; lists grow by one at a time."""
    part, *rest = path
    if isinstance(part, int):
        items = list(whole) if isinstance(whole, list) else []
        if part > len(items):
            raise Mismatch((), part, f"the next index, {len(items)}, first (no gap)")
        below = items[part] if part < len(items) else None
        items[part : part + 1] = [_placed(below, rest, value, name) if rest else value]
        return items
    names = dict(whole) if isinstance(whole, Mapping) else {}
    if not rest and part in names:
        raise Mismatch((part,), value, "one variable only, and another sets it too")
    names[part] = _placed(names.get(part), rest, value, name) if rest else value
    return names


def explain(name: str, problem: Mismatch, text: str) -> Problem:
    """A mismatch as the line that the user reads."""
    where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem.path)
    shown = _short(text if not problem.path else problem.value)
    hint = f"; {problem.hint}" if problem.hint else ""
    message = f"{shown} is not allowed{f' at {where}' if where else ''}; allowed: {problem.allowed}"
    return Problem(name, message + hint)


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."


def _unknown(name: str, types: Schema) -> Problem:
    hint = nearest(name.upper(), list(_names(types)))
    return Problem(name, f"no such setting{f'; did you mean {hint}?' if hint else ''}")


def _names(types: Schema) -> Iterator[str]:
    yield from (AXOLOTL + key.upper() for key in types.fields)
    yield from OWN

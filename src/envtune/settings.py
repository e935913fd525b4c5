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
from envtune.sources import AXOLOTL, Entry, Inputs, Layer, has_key_in_url

_POSITIVE = {"type": "integer", "minimum": 1}

# Where Axolotl takes what fails hours later, trains at a wrong rate or divides by zero.
_STRICTER: dict[str, Node] = {
    "learning_rate": {"type": "number", "exclusiveMinimum": 0},
    "num_epochs": {"type": "number", "exclusiveMinimum": 0},
    # With one, the old checkpoint is removed before the new one is committed.
    "save_total_limit": {"type": "integer", "minimum": 2},
    **dict.fromkeys(
        ("micro_batch_size", "gradient_accumulation_steps", "batch_size", "sequence_len", "lora_r"),
        _POSITIVE,
    ),
}

Path = tuple[str | int, ...]


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
            self._take(layer)
        for key, setting in self.axolotl.items():
            self._check_whole(key, setting)
        strict = self.own["SFT_STRICT"].value if "SFT_STRICT" in self.own else True
        if self.problems or (strict and self.unknown):
            raise Refused([*self.problems, *(self.unknown if strict else ())])
        warnings = (*inputs.notes, *(str(p) for p in self.unknown))
        return Settings(self.axolotl, self.own, warnings)

    def _take(self, layer: Layer) -> None:
        """Types the layer's entries, wholes before parts, and puts them over the weaker ones."""
        places = sorted(filter(None, map(self._place, layer.entries)), key=_order)
        taken: dict[tuple[str, Path], str] = {}
        for place in places:
            try:
                self._put(place, self._typed(place), layer.name, taken)
            except Mismatch as problem:
                self.problems.append(explain(place.entry.label, problem, place.entry.text))

    def _typed(self, place: "_Place") -> Any:
        if place.entry.document:
            return self.types.accept(place.entry.value, place.node)
        return self.types.parse(place.entry.text, place.node)

    def _place(self, entry: Entry) -> "_Place | None":
        """Where an entry belongs, or None when it has been noted as a problem."""
        if has_key_in_url(entry.text):
            message = (
                "holds a URL with a user, password or key; use the tool's own variable for those"
            )
            self.problems.append(Problem(entry.label, message))
            return None
        if entry.name in OWN:
            return _Place(entry, entry.name, (), OWN[entry.name].node)
        if entry.document:
            key, parts, named = entry.name, [], True
        else:
            key, *parts = entry.name.removeprefix(AXOLOTL).lower().split("__")
            named = entry.name.startswith(AXOLOTL) and entry.name == entry.name.upper()
        if not named or key not in self.types.fields:
            self.unknown.append(_unknown(entry, self.types))
            return None
        try:
            path, node = self.types.at(self.types.fields[key], parts)
        except Mismatch as problem:
            self.problems.append(explain(entry.name, problem, entry.text))
            return None
        return _Place(entry, key, path, node)

    def _put(
        self, place: "_Place", value: Any, layer: str, taken: dict[tuple[str, Path], str]
    ) -> None:
        name, settings = place.entry.label, self.own if place.key in OWN else self.axolotl
        for leaf in _leaves(value, place.path):
            if other := _overlap(place.key, leaf, taken):
                raise Mismatch((), value, f"one variable for one value; {other} sets it too")
            taken[place.key, leaf] = name
        if place.path:
            weaker = settings.get(place.key)
            value = _with(weaker.value if weaker else None, place.path, value)
            name = AXOLOTL + place.key.upper()
        settings[place.key] = Setting(value, name, layer)

    def _check_whole(self, key: str, setting: Setting) -> None:
        """A value built from parts has to be allowed as a whole too."""
        if isinstance(setting.value, list | dict):
            try:
                self.types.accept(setting.value, self.types.fields[key])
            except Mismatch as problem:
                self.problems.append(explain(setting.name, problem, ""))


@dataclass(frozen=True)
class _Place:
    """An entry, the key and path that its name spells, and the node there."""

    entry: Entry
    key: str
    path: Path
    node: Node


def _order(place: _Place) -> tuple[str, list[tuple[bool, str | int]]]:
    """Wholes before parts, and indices as numbers: 2 before 10."""
    return place.key, [(isinstance(part, str), part) for part in place.path]


def _leaves(value: Any, path: Path) -> Iterator[Path]:
    """The paths of every scalar in a value."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _leaves(item, (*path, index))
    else:
        yield path


def _overlap(key: str, leaf: Path, taken: Mapping[tuple[str, Path], str]) -> str | None:
    """The variable of this layer that sets `leaf` or a part around it already."""
    ends = (taken.get((key, leaf[:length])) for length in range(len(leaf) + 1))
    return next(filter(None, ends), None)


def _with(whole: Any, path: Path, value: Any) -> Any:
    """`whole` with `value` at `path`; lists grow by one at a time."""
    if not path:
        return value
    part, rest = path[0], path[1:]
    if isinstance(part, int):
        items = list(whole) if isinstance(whole, list) else []
        if part > len(items):
            raise Mismatch((), part, f"the next index, {len(items)}, first (no gap)")
        items[part : part + 1] = [_with(items[part] if part < len(items) else None, rest, value)]
        return items
    names = dict(whole) if isinstance(whole, Mapping) else {}
    names[part] = _with(names.get(part), rest, value)
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


def _unknown(entry: Entry, types: Schema) -> Problem:
    if entry.document:
        hint = nearest(entry.name, [*types.fields, *OWN])
    else:
        hint = nearest(entry.name.upper(), list(_names(types)))
    return Problem(entry.label, f"no such setting{f'; did you mean {hint}?' if hint else ''}")


def _names(types: Schema) -> Iterator[str]:
    yield from (AXOLOTL + key.upper() for key in types.fields)
    yield from upstream.axolotl()["reserved"]
    yield from OWN

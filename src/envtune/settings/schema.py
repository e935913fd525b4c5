"""Gives a text or a structured value the type that a JSON schema node asks for.

Environment variables are text; Axolotl's settings are typed. The rules:

- `null`, `none` and `~` are null where null is allowed.
- `true/false`, `yes/no`, `on/off` (any case) are booleans; `1` and `0` too where the
  setting takes no number.
- Numbers may be written `.0002`, `2e-4` or `1_000`; `nan` and `inf` are refused.
- A setting that takes only text gets the text as it is: `2024` stays `"2024"`, spaces stay.
- A member of an enumeration is that member, also `none`.
- Lists and objects are JSON; a list of scalars may also be separated by commas.
- In a JSON value a scalar in quotes is read like a text where no text is allowed.

Nothing here knows where a value came from: a `Mismatch` holds the path inside the
value and what is allowed there, and the caller names the variable.
"""

import difflib
import functools
import heapq
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from envtune.errors import Problem

Node = Mapping[str, Any]

_TRUE = {"true", "yes", "on"}
_FALSE = {"false", "no", "off"}
_NULL = {"null", "none", "~"}
# How much of a wrong value a line repeats.
_SHOWN = 80

# Half a character, or a byte that is no UTF-8: neither can be written to a file.
_SURROGATE = re.compile("[\ud800-\udfff]")

# No name is longer; how many names are looked at closely.
_NAME_LENGTH = 200
_LIKELY = 8


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


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant, or None when nothing is close."""
    if not 0 < len(name) <= _NAME_LENGTH:
        return None
    # difflib judges well and slowly: it sees only the few that share most pairs of letters.
    pairs = _pairs(name)
    likely = heapq.nlargest(
        _LIKELY, names, key=lambda other: len(pairs & _pairs(other)) / (len(name) + len(other))
    )
    found = difflib.get_close_matches(name, likely, n=1, cutoff=0.6)
    return found[0] if found else None


@functools.cache
def _pairs(name: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(name))


@dataclass(frozen=True)
class Schema:
    """The settings of one upstream: a node a key, and the definitions that nodes refer to."""

    fields: Mapping[str, Node]
    defs: Mapping[str, Node]

    def parse(self, text: str, node: Node) -> Any:
        """The value that `text` stands for. Raises Mismatch."""
        if _SURROGATE.search(text):
            raise Mismatch((), text, self.describe(node), "it is not UTF-8")
        kinds = self._kinds(node)
        stripped = text.strip()
        if (
            kinds & {"null", "any"}
            and stripped.lower() in _NULL
            and not self._names(stripped, node)
        ):
            return None
        if _looks_like_json(stripped, kinds):
            return self.accept(_json(stripped, self.describe(node)), node)
        flat = [o for o in self._options(node) if self._flat_list(o)]
        if flat and "," in text:
            return self.accept(_commas(text), flat[0])
        for scalar in _scalars(stripped, kinds):
            for option in self._options(node):
                if _allows(option, scalar):
                    return text if _kind(option) == "string" else scalar
        if flat:
            return self.accept(_commas(text), flat[0])
        raise Mismatch((), text, self.describe(node), self._enum_hint(stripped, node))

    def accept(self, value: Any, node: Node) -> Any:
        """`value` (of JSON's types) as the node wants it. Raises Mismatch."""
        if any(map(_SURROGATE.search, _texts(value))):
            raise Mismatch((), value, self.describe(node), "it is not UTF-8")
        return self._accept(value, node)

    def _accept(self, value: Any, node: Node) -> Any:
        options = self._options(node)
        if isinstance(value, str) and not any(_takes_text(o) for o in options):
            return self.parse(value, node)
        problems: list[Mismatch] = []
        # A whole number stays one where it may.
        for option in sorted(options, key=lambda o: _kind(o) == "number"):
            try:
                return self._accept_one(value, option)
            except Mismatch as problem:
                problems.append(problem)
        # The option that got furthest into the value explains the problem best.
        deepest = max(problems, key=lambda p: len(p.path), default=None)
        if deepest is not None and deepest.path:
            raise deepest
        raise Mismatch((), value, self.describe(node), self._enum_hint(value, node))

    def at(self, node: Node, parts: Sequence[str]) -> tuple[tuple[str | int, ...], Node]:
        """The path that `parts` spell below `node`, and the node there.

        A number is an index where a list may be, else a name. Raises Mismatch.
        """
        path: tuple[str | int, ...] = ()
        for part in parts:
            options = self._options(node)
            listed = part.isdigit() and any(_kind(o) == "array" for o in options)
            path = (*path, int(part) if listed else part)
            found = [self._child(o, path[-1]) for o in options]
            below = [child for child in found if child is not None]
            if not below:
                raise self._nothing_there(path, options)
            node = below[0] if len(below) == 1 else {"anyOf": below}
        return path, node

    def _nothing_there(self, path: tuple[str | int, ...], options: Sequence[Node]) -> Mismatch:
        names = sorted({name for o in options for name in o.get("properties", {})})
        allowed = "one of " + ", ".join(names[:12]) if names else "no part of its own"
        hint = nearest(str(path[-1]), names)
        return Mismatch(path, path[-1], allowed, f"did you mean {hint}?" if hint else "")

    def describe(self, node: Node) -> str:
        """What a reader may write there, in a few words with an example."""
        options = [o for o in self._options(node) if o.get("type") != "null"]
        words = list(dict.fromkeys(_words(option, self) for option in options))
        if any(o.get("type") == "null" for o in self._options(node)):
            words.append("null")
        return " or ".join(words) if words else "any value"

    def _options(self, node: Node) -> list[Node]:
        """The node's alternatives, references followed. An empty node allows anything."""
        if "$ref" in node:
            return self._options(self.defs[node["$ref"].rsplit("/", 1)[1]])
        if "anyOf" in node:
            return [option for part in node["anyOf"] for option in self._options(part)]
        return [node]

    def _kinds(self, node: Node) -> set[str]:
        return {_kind(option) for option in self._options(node)}

    def _names(self, text: str, node: Node) -> bool:
        """Whether `text` is a member of one of the node's enumerations."""
        return any(text in option.get("enum", ()) for option in self._options(node))

    def _flat_list(self, node: Node) -> bool:
        return _kind(node) == "array" and not self._structured(node.get("items", {}))

    def _structured(self, node: Node) -> bool:
        return bool(self._kinds(node) & {"object", "array"})

    def _child(self, node: Node, part: str | int) -> Node | None:
        if isinstance(part, int):
            return _item(node, part) if node.get("type") == "array" else None
        if part in node.get("properties", {}):
            child: Node = node["properties"][part]
            return child
        free = _free(node)
        return free if node.get("type") == "object" and free is not None else None

    def _accept_one(self, value: Any, node: Node) -> Any:
        kind = _kind(node)
        if kind == "array" and isinstance(value, list) and _fits(node, value):
            return [self._inside(item, _item(node, i), i) for i, item in enumerate(value)]
        if kind == "object" and isinstance(value, Mapping):
            return self._accept_object(value, node)
        if kind == "number" and type(value) is int:
            value = _real(value)
        if _allows(node, value):
            return value
        raise Mismatch((), value, _words(node, self))

    def _accept_object(self, value: Mapping[str, Any], node: Node) -> dict[str, Any]:
        result = {}
        for name, item in ((str(name), item) for name, item in value.items()):  # YAML has 0: too
            child = self._child(node, name)
            if child is None:
                hint = nearest(name, list(node.get("properties", {})))
                raise Mismatch(
                    (name,), item, "no such name here", f"did you mean {hint}?" if hint else ""
                )
            result[name] = self._inside(item, child, name)
        return result

    def _inside(self, value: Any, node: Node, part: str | int) -> Any:
        try:
            return self._accept(value, node)
        except Mismatch as problem:
            problem.path = (part, *problem.path)
            raise

    def _enum_hint(self, value: Any, node: Node) -> str:
        names = [str(v) for o in self._options(node) for v in o.get("enum", ())]
        hint = nearest(str(value), names)
        return f"did you mean {hint}?" if hint else ""


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, names too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from (*_texts(name), *_texts(item))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _kind(node: Node) -> str:
    if "enum" in node or "const" in node:
        return "enum"
    return str(node.get("type", "any"))


def _takes_text(node: Node) -> bool:
    return _kind(node) in ("string", "any")


def _free(node: Node) -> Node | None:
    """The node for names that an object does not list, or None when it takes no others."""
    extra = node.get("additionalProperties", "properties" not in node)
    if extra is True:
        return {}
    return extra or None


def _item(node: Node, index: int) -> Node:
    """The node of a list's item: by its place where the list is a tuple."""
    places: Sequence[Node] = node.get("prefixItems", ())
    child: Node = places[index] if index < len(places) else node.get("items", {})
    return child


def _looks_like_json(stripped: str, kinds: set[str]) -> bool:
    """Whether a text is JSON or a slip of it. `{a,b}.jsonl` is text where no object may be."""
    if stripped.startswith("{") and "string" in kinds:
        return bool(kinds & {"object", "any"})
    return stripped.startswith(("[", "{")) and bool(kinds & {"array", "object", "any"})


def _fits(node: Node, items: Sequence[Any]) -> bool:
    """Whether a list is neither too short nor too long."""
    return bool(node.get("minItems", 0) <= len(items) <= node.get("maxItems", math.inf))


def _scalars(stripped: str, kinds: set[str]) -> list[Any]:
    """The readings of a text, the narrowest first; which one holds is the node's to say."""
    readings: list[Any] = []
    if stripped.lower() in _TRUE | _FALSE:
        readings.append(stripped.lower() in _TRUE)
    elif stripped in ("0", "1") and not kinds & {"integer", "number"}:
        readings.append(stripped == "1")
    for number in (int, float):
        try:
            readings.append(number(stripped))
        except ValueError:
            continue
    return [*readings, stripped]


def _allows(node: Node, value: Any) -> bool:
    kind = _kind(node)
    if kind == "enum":
        allowed = node.get("enum", [node.get("const")])
        return any(value == v and type(value) is type(v) for v in allowed)
    if kind == "integer":
        return type(value) is int and _in_range(node, value)
    if kind == "number":
        return type(value) is float and math.isfinite(value) and _in_range(node, value)
    if kind == "string" and "pattern" in node:
        return isinstance(value, str) and bool(re.search(node["pattern"], value))
    if kind == "any":
        return not isinstance(value, float) or math.isfinite(value)
    return kind in _PYTHON and type(value) is _PYTHON[kind]


_PYTHON = {"boolean": bool, "integer": int, "number": float, "string": str, "null": type(None)}


def _real(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _in_range(node: Node, value: float) -> bool:
    return bool(
        node.get("minimum", value) <= value <= node.get("maximum", value)
        and value > node.get("exclusiveMinimum", -math.inf)
        and value < node.get("exclusiveMaximum", math.inf)
    )


def _words(node: Node, schema: Schema) -> str:
    kind = _kind(node)
    if kind == "enum":
        return "one of " + ", ".join(str(v) for v in node.get("enum", [node.get("const")]))
    if kind == "array":
        if "title" in node:
            return str(node["title"])
        items = node.get("items", {})
        if schema._structured(items):
            return 'a JSON list, e.g. [{"path": "data.jsonl"}]' + _length_words(node)
        example = '["a","b"]' if "string" in str(items) else "[1,2]"
        return f"a list, e.g. a,b or {example}{_length_words(node)}"
    if kind in ("integer", "number"):
        return _NUMBER_WORDS[kind] + _range_words(node)
    if "pattern" in node and "title" not in node:
        return f"text that matches {node['pattern']}"
    return str(node.get("title", _SCALAR_WORDS[kind]))


_NUMBER_WORDS = {"integer": "a whole number, e.g. 4", "number": "a number, e.g. 0.0002 or 2e-4"}
_SCALAR_WORDS = {
    "boolean": "true or false",
    "string": "text",
    "object": 'a JSON object, e.g. {"name": "value"}',
    "null": "null",
    "any": "any value",
}


def _range_words(node: Node) -> str:
    signs = {
        "minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<",
    }  # fmt: skip
    limits = [f"{sign} {node[name]}" for name, sign in signs.items() if name in node]
    return f" ({', '.join(limits)})" if limits else ""


def _length_words(node: Node) -> str:
    low, high = node.get("minItems", 0), node.get("maxItems")
    if high is not None:
        return f" ({low} items)" if low == high else f" ({low} to {high} items)"
    return f" (at least {low})" if low else ""


def _commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _json(text: str, allowed: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except ValueError as error:
        raise Mismatch((), text, allowed, f"not JSON: {error}") from None
    except RecursionError:
        raise Mismatch((), text, allowed, "nested too deeply") from None


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is too large for a number")
    return number


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")

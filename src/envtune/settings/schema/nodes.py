"""What one node of a JSON schema allows, references aside."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

Node = Mapping[str, Any]

_PYTHON = {"boolean": bool, "integer": int, "number": float, "string": str, "null": type(None)}


def kind(node: Node) -> str:
    """Its type by name; `enum` for a closed list, `any` where it says none."""
    if "enum" in node or "const" in node:
        return "enum"
    return str(node.get("type", "any"))


def takes_text(node: Node) -> bool:
    """Whether any text is a value of it."""
    return kind(node) in ("string", "any")


def child(node: Node, part: str | int) -> Node | None:
    """The node of an object's name or of a list's index, or None where there is none."""
    if isinstance(part, int):
        return item(node, part) if node.get("type") == "array" else None
    if part in node.get("properties", {}):
        found: Node = node["properties"][part]
        return found
    free = _free(node)
    return free if node.get("type") == "object" and free is not None else None


def _free(node: Node) -> Node | None:
    """The node for names that an object does not list, or None when it takes no others."""
    extra = node.get("additionalProperties", "properties" not in node)
    if extra is True:
        return {}
    return extra or None


def item(node: Node, index: int) -> Node:
    """The node of a list's item: by its place where the list is a tuple."""
    places: Sequence[Node] = node.get("prefixItems", ())
    found: Node = places[index] if index < len(places) else node.get("items", {})
    return found


def fits(node: Node, items: Sequence[Any]) -> bool:
    """Whether a list is neither too short nor too long."""
    return bool(node.get("minItems", 0) <= len(items) <= node.get("maxItems", math.inf))


def _ends(pattern: str) -> str:
    """A schema's $ is the text's end; Python's stands before a last newline too."""
    return re.sub(r"\$\Z", r"\\Z", pattern)


def allows(node: Node, value: Any) -> bool:
    """Whether a value is one of the node's; lists and objects are looked into elsewhere."""
    named = kind(node)
    if named == "enum":
        allowed = node.get("enum", [node.get("const")])
        return any(value == v and type(value) is type(v) for v in allowed)
    if named == "integer":
        return type(value) is int and _in_range(node, value)
    if named == "number":
        return type(value) is float and math.isfinite(value) and _in_range(node, value)
    if named == "string" and "pattern" in node:
        return isinstance(value, str) and bool(re.search(_ends(node["pattern"]), value))
    if named == "any":
        return not isinstance(value, float) or math.isfinite(value)
    return named in _PYTHON and type(value) is _PYTHON[named]


def as_number(node: Node, value: Any) -> Any:
    """`value` as the number that the node wants, where it is one: 1.0 is whole, off is 0.

    pydantic, which types Axolotl's keys, takes both.
    """
    named = kind(node)
    if named == "integer" and (value is False or (type(value) is float and value.is_integer())):
        return int(value)
    return real(value) if named == "number" and type(value) is int else value


def real(number: int) -> float:
    """A whole number as a real one, which is infinite where it is too large for one."""
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

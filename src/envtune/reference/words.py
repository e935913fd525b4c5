"""Types and sentences in as few words as a table's cell holds. Markdown."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from envtune.settings.schema import Node

# An enumeration with more members is named by their number; the page lists them apart.
LISTED = 8
_SENTENCE = re.compile(r".*?(?<!e\.g)(?<!i\.e)(?<!etc)[.!](?=\s+[A-Z`'\"(\[])", re.DOTALL)
_LONGEST = 130
_TYPES = {
    "boolean": "true/false", "integer": "integer", "number": "number", "string": "text",
    "object": "JSON object", "any": "any value",
}  # fmt: skip
_SIGNS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}


def options(node: Node, defs: Mapping[str, Node]) -> Iterator[Node]:
    """A node's alternatives, references followed."""
    if "$ref" in node:
        yield from options(defs[node["$ref"].rsplit("/", 1)[1]], defs)
    elif "anyOf" in node:
        for part in node["anyOf"]:
            yield from options(part, defs)
    else:
        yield node


def members(node: Node, defs: Mapping[str, Node]) -> list[Any]:
    """The values of a node's enumerations."""
    found = (o.get("enum", [o["const"]] if "const" in o else []) for o in options(node, defs))
    return [value for values in found for value in values]


def names(node: Node, defs: Mapping[str, Node]) -> list[str]:
    """The names that a node's objects take, also those in its lists; `__` goes inside."""
    found: dict[str, None] = {}
    for option in options(node, defs):
        if isinstance(option.get("items"), Mapping):
            found |= dict.fromkeys(names(option["items"], defs))
        for name, child in option.get("properties", {}).items():
            found |= dict.fromkeys([name, *(f"{name}__{part}" for part in names(child, defs))])
    return sorted(found)


def kind(node: Node, defs: Mapping[str, Node]) -> str:
    """The type, e.g. `integer >= 1`; `not null` where null is refused."""
    alternatives = list(options(node, defs))
    found = dict.fromkeys(_one(o, defs) for o in alternatives if o.get("type") != "null")
    refused = "" if any(o.get("type") in ("null", None) for o in alternatives) else ", not null"
    return " or ".join(found) + refused


def own_kind(node: Node) -> str:
    """The type of one of envtune's own settings, which are never null."""
    return str(node.get("title") or kind(node, {}).removesuffix(", not null"))


def _one(node: Node, defs: Mapping[str, Node]) -> str:
    if values := members(node, defs):
        shown = " or ".join(f"`{shorn(value)}`" for value in values)
        return shown if len(values) <= LISTED else f"one of {len(values)} names"
    if node.get("type") == "array":
        return _list(node, defs)
    limits = [f"{sign} {node[name]}" for name, sign in _SIGNS.items() if name in node]
    return " ".join([_TYPES[node.get("type", "any")], " and ".join(limits)]).rstrip()


def _list(node: Node, defs: Mapping[str, Node]) -> str:
    items = {o.get("type", "any") for o in options(node.get("items", {}), defs)}
    if items & {"object", "array", "any"}:
        return "JSON list"
    return "list of " + " or ".join(sorted({_TYPES[item] for item in items - {"null"}}))


def shorn(value: Any) -> str:
    """A value as the environment spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def meaning(node: Node) -> str:
    """The first sentence of a node's description, cut between two words where it is long."""
    text = str(node.get("description", ""))
    found = _SENTENCE.match(text)
    first = (found[0] if found else text).strip().removesuffix(".")
    if len(first) > _LONGEST:
        first = first[:_LONGEST].rsplit(" ", 1)[0].removesuffix(".") + " ..."
    gone = node.get("deprecated") and "deprecated" not in first.lower()
    return f"deprecated: {first}".removesuffix(": ") if gone else first

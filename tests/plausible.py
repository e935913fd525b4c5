"""Values that a node of the snapshot allows, each with a text that stands for it.

The text is what a user would write into a variable; the value is what has to arrive.
"""

import json
import random
from collections.abc import Iterator
from typing import Any

from envtune.settings.schema import Node, Schema

# Texts that a careless reader of YAML, JSON or Jinja takes for something else.
AWKWARD = (
    "2024", "007", "1e5", "2e-4", ".5", "true", "yes", "NO", "off", "nan", "-inf", "0x10", "1_000",
    "12:30:45", "2024-01-01", "=", "<<", "!!python/name:os.system", "&a", "*a", "---", "...", "? a",
    "- a", "a: b", "a #b", "#", "%TAG", "@", "`x`", "|", ">", "'", '"', "it's", 'say "so"', "\\n",
    "{{ 7 * 7 }}", "{% raw %}", "{# x #}", "${HOME}", "[a]", "{a: b}", "a,b", ",", " led", "tail ",
    "\ttab", "two\nlines", "two\n\n  lines\n", "cr\rlf\r\n", "ä", "日本", "🦙", "a\u0085b", "a\u2028b",
    "\ufeffbom", "e\u0301", "\u202eabc", "\x7f", "\x1b[31m",
)  # fmt: skip
# Words that no other type takes for one of its own.
WORDS = ("word", "a-b_c/d.e", "ä ö", "it's #1: {x}", "🦙 llama")

Spelled = tuple[str, Any]


def spelled(types: Schema, node: Node, dice: random.Random) -> Iterator[Spelled]:
    """Texts for a value of every type that `node` allows, and what they stand for."""
    options = types._options(node)
    kinds = {_kind(option) for option in options}
    for option in options:
        yield from _scalars(option, kinds, dice)
        if _kind(option) in ("array", "object", "any"):
            for _ in range(3):
                given = value(types, option, dice)
                # Alone, a text of an "any" would keep JSON's quotes.
                yield from _as_json([given] if isinstance(given, str) else given)
        if _kind(option) == "array":
            yield from _with_commas(types, option, dice)


def _scalars(node: Node, kinds: set[str], dice: random.Random) -> Iterator[Spelled]:
    kind = _kind(node)
    if kind == "enum":
        members = node.get("enum", [node.get("const")])
        yield from ((m if isinstance(m, str) else json.dumps(m), m) for m in members)
    elif kind == "null":
        yield from ((text, None) for text in ("null", "None", " NULL ", "~"))
    elif kind == "boolean":
        yield from ((text, text in ("true", "Yes", "ON")) for text in ("true", "Yes", "ON"))
        yield from ((text, False) for text in ("false", "no", "Off"))
        if not kinds & {"integer", "number"}:
            yield from (("1", True), ("0", False))
    elif kind in ("integer", "number"):
        yield from _numbers(node, kinds, dice)
    elif kind == "string":
        alone = kinds <= {"string", "null", "enum"}
        yield from ((text, text) for text in _texts(node, awkward=alone))


def _texts(node: Node, *, awkward: bool) -> tuple[str, ...]:
    if "pattern" in node:  # Axolotl's only one is a beginning
        return tuple(node["pattern"].lstrip("^") + word for word in WORDS)
    return (*WORDS, *AWKWARD) if awkward else WORDS


def _numbers(node: Node, kinds: set[str], dice: random.Random) -> Iterator[Spelled]:
    low, high = _limits(node)
    if _kind(node) == "integer":
        whole = dice.randint(int(low) + 1, int(high))
        spellings = (f"{whole}", f" {whole}\n", f"{whole:_}", f"{abs(whole):+}")
        yield from ((text, int(text)) for text in spellings)
        return
    number = dice.uniform(low, high)
    fixed = ("2e-4", ".0002", "1e-05", "1E-7", *(() if "integer" in kinds else ("1",)))
    for text in (repr(number), f"{number:.9e}", f"{number:f}", *fixed):
        if low < float(text) < high:
            yield text, float(text)


def _as_json(given: Any) -> Iterator[Spelled]:
    yield json.dumps(given), given
    yield " " + json.dumps(given, ensure_ascii=False, indent=1), given


def _with_commas(types: Schema, node: Node, dice: random.Random) -> Iterator[Spelled]:
    kind = _kind(node.get("items", {}))
    items = {"string": ["q_proj", "ä", "2024"], "integer": [1, -2, 3], "number": [1.5, 2e-4, 3.0]}
    if kind in items and "prefixItems" not in node:
        yield ",".join(map(str, items[kind])), items[kind]
        yield " , ".join(map(str, items[kind])) + ",", items[kind]


def value(types: Schema, node: Node, dice: random.Random) -> Any:
    """A value of JSON's types that `node` allows."""
    option = dice.choice(types._options(node))
    kind = _kind(option)
    if kind == "array":
        places = option.get("prefixItems")
        items = places or [option.get("items", {})] * dice.randint(option.get("minItems", 0), 3)
        return [value(types, item, dice) for item in items]
    if kind == "object":
        return _object(types, option, dice)
    if kind == "enum":
        return dice.choice(option.get("enum", [option.get("const")]))
    low, high = _limits(option)
    scalars = {
        "null": None,
        "boolean": dice.random() < 0.5,
        "integer": dice.randint(int(low) + 1, int(high)),
        "number": dice.uniform(low, high),
        "string": dice.choice(_texts(option, awkward=True)),
    }
    return scalars[dice.choice(sorted(scalars)) if kind == "any" else kind]


def _object(types: Schema, node: Node, dice: random.Random) -> dict[str, Any]:
    names = sorted(node.get("properties", {}))
    if names:
        chosen = {*dice.sample(names, min(4, len(names))), *node.get("required", ())}
        return {name: value(types, node["properties"][name], dice) for name in sorted(chosen)}
    extra = node.get("additionalProperties")
    below = extra if isinstance(extra, dict) else {}
    names = dice.choice((("name", "a.b", "ä", "null"), ("0", "128")))
    return {name: value(types, below, dice) for name in names}


def _limits(node: Node) -> tuple[float, float]:
    low = node.get("minimum", node.get("exclusiveMinimum", -2000))
    return low, node.get("maximum", 3000 if low < 3000 else low + 3000)


def _kind(node: Node) -> str:
    if "enum" in node or "const" in node:
        return "enum"
    return str(node.get("type", "any"))

"""What one node allows, in a few words with an example."""

from envtune.settings.schema.nodes import Node, kind

_NUMBER_WORDS = {"integer": "a whole number, e.g. 4", "number": "a number, e.g. 0.0002 or 2e-4"}
_SCALAR_WORDS = {
    "boolean": "true or false",
    "string": "text",
    "object": 'a JSON object, e.g. {"name": "value"}',
    "null": "null",
    "any": "any value",
}


def describe(node: Node, structured: bool) -> str:
    """`structured`: the items of a list are objects or lists themselves."""
    named = kind(node)
    if named == "enum":
        return "one of " + ", ".join(str(v) for v in node.get("enum", [node.get("const")]))
    if named == "array":
        if "title" in node:
            return str(node["title"])
        if structured:
            return 'a JSON list, e.g. [{"path": "data.jsonl"}]' + _length_words(node)
        example = '["a","b"]' if "string" in str(node.get("items", {})) else "[1,2]"
        return f"a list, e.g. a,b or {example}{_length_words(node)}"
    if named in ("integer", "number"):
        return _NUMBER_WORDS[named] + _range_words(node)
    if "pattern" in node and "title" not in node:
        return f"text that matches {node['pattern']}"
    return str(node.get("title", _SCALAR_WORDS[named]))


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

"""The settings of one upstream, and what types their values."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from envtune.settings.schema import nodes, texts, words
from envtune.settings.schema.mismatch import Mismatch
from envtune.settings.schema.nodes import Node, kind
from envtune.settings.spelling.nearest import slip, suggestion

# The mark of a name that the upstream takes and drops.
DROPPED = "dropped"


@dataclass(frozen=True)
class Schema:
    """The settings of one upstream: a node a key, and the definitions that nodes refer to.

    `strict`: a name that an object does not have is refused; else only a slip of one that it has.
    """

    fields: Mapping[str, Node]
    defs: Mapping[str, Node]
    strict: bool = True

    @functools.cached_property
    def loose(self) -> "Schema":
        """The same, taking names of which the upstream knows nothing."""
        return replace(self, strict=False)

    def parse(self, text: str, node: Node) -> Any:
        """The value that `text` stands for. Raises Mismatch."""
        if not texts.is_utf8(text):
            raise Mismatch((), text, self.describe(node), "it is not UTF-8")
        kinds = self._kinds(node)
        stripped = text.strip()
        nullable = kinds & {"null", "any"} and not self._names(stripped, node)
        if nullable and texts.is_null(stripped):
            return None
        if texts.looks_like_json(stripped, kinds):
            return self.accept(texts.parse_json(stripped, self.describe(node)), node)
        flat = [o for o in self._options(node) if self._flat_list(o)]
        if flat and "," in text:
            return self.accept(texts.commas(text), flat[0])
        for scalar in texts.scalars(stripped, kinds):
            for option in self._options(node):
                if nodes.allows(option, scalar):
                    return text if kind(option) == "string" else scalar
        if flat:
            return self.accept(texts.commas(text), flat[0])
        for scalar in texts.scalars(stripped, kinds)[:-1]:
            for option in self._options(node):
                if nodes.allows(option, number := nodes.as_number(option, scalar)):
                    return number
        raise Mismatch((), text, self.describe(node), self._enum_hint(stripped, node))

    def accept(self, value: Any, node: Node) -> Any:
        """`value` (of JSON's types) as the node wants it. Raises Mismatch."""
        if not texts.is_utf8(value):
            raise Mismatch((), value, self.describe(node), "it is not UTF-8")
        return self._accept(value, node)

    def _accept(self, value: Any, node: Node) -> Any:
        options = self._options(node)
        if isinstance(value, str) and not any(nodes.takes_text(o) for o in options):
            return self.parse(value, node)
        problems: list[Mismatch] = []
        taken: list[tuple[int, Any]] = []
        # A whole number stays one where it may.
        for option in sorted(options, key=lambda o: kind(o) == "number"):
            try:
                found = self._accept_one(value, option)
            except Mismatch as problem:
                problems.append(problem)
            else:
                taken.append((len(self.unread(found, option)), found))
        if taken:  # of several kinds of object the one that knows most of the names
            return min(taken, key=lambda one: one[0])[1]
        if self.strict and self._mixes(value, options):
            return self.loose.accept(value, node)
        # The option that got furthest into the value, with the least wrong, explains it best.
        deepest = max(problems, key=lambda p: (len(p.path), -len(p.more)), default=None)
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
            listed = part.isdigit() and any(kind(o) == "array" for o in options)
            path = (*path, int(part) if listed else part)
            found = [nodes.child(o, path[-1]) for o in options]
            below = [child for child in found if child is not None]
            if not below:
                raise self._nothing_there(path, options)
            node = below[0] if len(below) == 1 else {"anyOf": below}
        return path, node

    def _nothing_there(self, path: tuple[str | int, ...], options: Sequence[Node]) -> Mismatch:
        names = sorted({name for o in options for name in o.get("properties", {})})
        allowed = "one of " + ", ".join(names[:12]) if names else "no part of its own"
        return Mismatch(path, path[-1], allowed, suggestion(str(path[-1]), names))

    def unread(self, value: Any, node: Node) -> list[tuple[str | int, ...]]:
        """The paths of the names within an accepted `value` that no option of `node` has."""
        if isinstance(value, Mapping):
            named, parts = "object", list(value.items())
        elif isinstance(value, list):
            named, parts = "array", list(enumerate(value))
        else:
            return []
        options = [o for o in self._options(node) if kind(o) in (named, "any")]
        if not options or any(kind(o) == "any" for o in options):
            return []
        lost: list[tuple[str | int, ...]] = []
        for part, item in parts:
            found = (nodes.child(option, part) for option in options)
            below = [child for child in found if child is not None and DROPPED not in child]
            inside = self.unread(item, {"anyOf": below}) if below else [()]
            lost += [(part, *path) for path in inside]
        return lost or self._of_others(value, options)

    def _of_others(self, value: Any, options: Sequence[Node]) -> list[tuple[str | int, ...]]:
        """The names that the kind of object which a value is nearest to does not have, and another
        kind has; nothing where it is as near to two."""
        if not isinstance(value, Mapping) or len(options) < 2:
            return []
        least, next_, *_ = sorted((self.unread(value, option) for option in options), key=len)
        return least if len(least) < len(next_) else []

    def _mixes(self, value: Any, options: Sequence[Node]) -> bool:
        """Whether an object has names of several kinds, each known and no kind knowing all: the
        upstream takes it for one of them and drops the others' names."""
        kinds = [option for option in options if kind(option) == "object"]
        if not isinstance(value, Mapping) or len(kinds) < 2:
            return False
        known = {name for option in kinds for name in option.get("properties", {})}
        return known.issuperset(value) and all(self.unread(value, option) for option in kinds)

    def describe(self, node: Node) -> str:
        """What a reader may write there, in a few words with an example."""
        options = [o for o in self._options(node) if o.get("type") != "null"]
        described = list(dict.fromkeys(map(self._words, options)))
        if any(o.get("type") == "null" for o in self._options(node)):
            described.append("null")
        return " or ".join(described) if described else "any value"

    def _options(self, node: Node) -> list[Node]:
        """The node's alternatives, references followed. An empty node allows anything."""
        if "$ref" in node:
            return self._options(self.defs[node["$ref"].rsplit("/", 1)[1]])
        if "anyOf" in node:
            return [option for part in node["anyOf"] for option in self._options(part)]
        return [node]

    def _kinds(self, node: Node) -> set[str]:
        return {kind(option) for option in self._options(node)}

    def _names(self, text: str, node: Node) -> bool:
        """Whether `text` is a member of one of the node's enumerations."""
        return any(text in option.get("enum", ()) for option in self._options(node))

    def _words(self, option: Node) -> str:
        return words.describe(option, self._structured(option.get("items", {})))

    def _flat_list(self, node: Node) -> bool:
        return kind(node) == "array" and not self._structured(node.get("items", {}))

    def _structured(self, node: Node) -> bool:
        return bool(self._kinds(node) & {"object", "array"})

    def _accept_one(self, value: Any, node: Node) -> Any:
        named = kind(node)
        if named == "array" and isinstance(value, list) and nodes.fits(node, value):
            return self._all((i, item, nodes.item(node, i)) for i, item in enumerate(value))
        if named == "object" and isinstance(value, Mapping):
            return self._accept_object(value, node)
        value = nodes.as_number(node, value)
        if nodes.allows(node, value):
            return value
        raise Mismatch((), value, self._words(node))

    def _accept_object(self, value: Mapping[str, Any], node: Node) -> dict[str, Any]:
        parts = {str(name): item for name, item in value.items()}  # YAML has 0: too
        found = self._all((name, item, self._child(node, name)) for name, item in parts.items())
        return dict(zip(parts, found, strict=True))

    def _child(self, node: Node, name: str) -> Node | str:
        """The node of a name; the question which was meant; anything for what will be dropped."""
        if (child := nodes.child(node, name)) is not None:
            return child
        names = node.get("properties", {})
        if self.strict:
            return suggestion(name, names)
        meant = slip(name, names)
        return f"did you mean {meant}?" if meant else {}

    def _part(self, value: Any, node: Node | str) -> Any:
        if isinstance(node, str):
            raise Mismatch((), value, "no such name here", node)
        return self._accept(value, node)

    def _all(self, parts: Iterable[tuple[str | int, Any, Node | str]]) -> list[Any]:
        """The values of a list or an object. Raises Mismatch for all that are wrong at once."""
        found, problems = [], []
        for part, item, node in parts:
            try:
                found.append(self._part(item, node))
            except Mismatch as problem:
                problem.below(part)
                problems.append(problem)
        if problems:
            raise Mismatch.first(problems)
        return found

    def _enum_hint(self, value: Any, node: Node) -> str:
        names = [str(v) for o in self._options(node) for v in o.get("enum", ())]
        return suggestion(str(value), names)

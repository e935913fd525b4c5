"""Parses a configuration given whole: a mounted JSON or YAML file, or base64 JSON.

Nothing is ever executed: JSON is JSON, YAML is safe and without aliases (so that a few
lines cannot grow into gigabytes), a name may stand only once, and nothing is read past
one mebibyte. Every complaint has a place: line and column, or byte.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from envtune import files
from envtune.settings.paths import near_file

LIMIT = 1 << 20
# PyYAML reads some 100 KiB a second.
_YAML_LIMIT = 1 << 17
# A text in quotes, or a comment outside of one.
# The text's end counts as its closing quote, so that nothing is read twice.
_COMMENT = re.compile(r'("(?:\\.|[^"\\])*+(?:"|\\?\Z))|//[^\n]*')
_JINJA = re.compile(r"\{\{|\{%")


@dataclass(frozen=True)
class Document:
    """Names and values, and what a reader should know. `ours`: envtune has written it, so that its
    names are Axolotl's and no other tool's."""

    values: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    ours: bool = False


class DocumentError(Exception):
    """What is wrong with a document, on one line."""


def read_file(path: Path) -> Document:
    """The object in a JSON or YAML file. Raises DocumentError."""
    return _parsed(read_text(path), path)


def read_if_named(path: str | None) -> tuple[Mapping[str, Any], str]:
    """The object in a file, and what is wrong with it; nothing where none is named."""
    try:
        return (read_file(Path(path)).values if path else {}), ""
    except DocumentError as error:
        return {}, str(error)


def read_defaults(path: Path) -> Document | None:
    """The object in a YAML file of defaults; None for a Jinja template, which only lays out."""
    text = read_text(path)
    return None if is_template(text) else _parsed(text, path)


def is_template(text: str) -> bool:
    """Whether a text has Jinja in it."""
    return bool(_JINJA.search(text))


def read_text(path: Path, limit: int = LIMIT) -> str:
    """The text of a regular file of at most `limit` bytes. Raises DocumentError."""
    try:
        data = files.head(path, limit + 1)
    except OSError as error:
        near = near_file(str(path)) if isinstance(error, FileNotFoundError) else ""
        raise DocumentError(f"{path} cannot be read: {error.strerror}{near}") from None
    return _text(data, str(path), limit)


def parse(text: str, where: str, suffix: str) -> Any:
    """Whatever a text holds: JSON where `suffix` is .json, else YAML. Raises DocumentError."""
    return _json(text, where) if suffix == ".json" else _yaml(text, where)


def _parsed(text: str, path: Path) -> Document:
    if path.suffix != ".json" and not text.lstrip().startswith("{"):
        return Document(_object(_yaml(text, str(path)), str(path)))
    plain = _COMMENT.sub(lambda found: found[1] or "", text)
    notes = () if plain == text else (f"{path} has // comments, which JSON does not; passed over",)
    return Document(_object(_json(plain, str(path)), str(path)), notes)


def decode(text: str) -> Document:
    """The object in base64 JSON. Raises DocumentError."""
    if len(text) > LIMIT * 4 // 3 + 4:
        raise DocumentError("holds more than 1 MiB")
    try:
        data = base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise DocumentError("is not base64; encode the JSON with `base64 -w0`") from None
    return Document(_object(_json(_text(data, "its base64"), "its JSON"), "its JSON"))


def _text(data: bytes, where: str, limit: int = LIMIT) -> str:
    if len(data) > limit:
        raise DocumentError(f"{where} holds more than {limit >> 20} MiB")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{where} is not UTF-8 at byte {error.start}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DocumentError(f"{where} holds no object of names and values")
    return value


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}"
        raise DocumentError(f"{where} is not JSON at {place}: {error.msg}") from None
    except ValueError as error:  # a number of more digits than Python reads
        raise DocumentError(f"{where} is not JSON: {error}") from None
    except RecursionError:
        raise DocumentError(f"{where} is nested too deeply") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise DocumentError(f"{name} stands twice; which one counts?")
        found[name] = value
    return found


class _Loader(yaml.SafeLoader):
    """Safe YAML without aliases and without names that stand twice."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise DocumentError(f"line {self.line + 1}: aliases are not taken; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names: set[str | int] = set()
        for key, _ in node.value:
            name, line = self.construct_object(key, deep=True), key.start_mark.line + 1
            if not isinstance(name, str | int):
                raise DocumentError(f"line {line}: {name} is no name; put it in quotes")
            if name in names:
                raise DocumentError(f"line {line}: {name} stands twice")
            names.add(name)
        return super().construct_mapping(node, deep)


def _yaml(text: str, where: str) -> Any:
    if len(text) > _YAML_LIMIT:
        raise DocumentError(f"{where} holds more than 128 KiB of YAML; write it as JSON")
    try:
        return yaml.load(text, _Loader)  # a SafeLoader with less
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f"line {mark.line + 1} column {mark.column + 1}" if mark else "an unknown place"
        raise DocumentError(f"{where} is not YAML at {place}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise DocumentError(f"{where} is not YAML: {error}") from None
    except RecursionError:
        raise DocumentError(f"{where} is nested too deeply") from None

"""YAML of several documents, in which a key that begins with `#` is a commented line."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import yaml

_OFF = re.compile(r"^(?P<before>[ -]*)'#(?P<key>[^']+)':(?P<rest>.*)$")


class _Dumper(yaml.SafeDumper):
    """Indents lists, so that what belongs to a key is told by its column."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(documents: Iterable[Any]) -> str:
    """The documents, each led by `---` where there are several."""
    texts = [
        yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100) for document in documents
    ]
    return "---\n".join("\n".join(_lines(text.splitlines())) + "\n" for text in texts)


def _lines(lines: list[str]) -> Iterator[str]:
    column = None
    for line in lines:
        off = _OFF.match(line)
        indent = len(line) - len(line.lstrip(" "))
        if off and (column is None or indent <= column):
            column = len(off["before"])
            yield f"{off['before']}# {off['key']}:{off['rest']}"
        elif column is not None and indent > column:
            yield f"{line[:column]}# {line[column:]}"
        else:
            column = None
            yield line

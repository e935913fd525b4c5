"""Pages in Markdown: a template's prose around tables."""

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2

from envtune.render.yaml_files import TEMPLATES

# What a reader of Markdown takes for the start of a tag, and for emphasis.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_EMPHASIS = re.compile(r"\*|(?<!\w)_|_(?!\w)")

Table = Sequence[Sequence[str]]


def page(template: str, content: Mapping[str, Any]) -> str:
    """The page that a template of `templates/` makes of its content."""
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"table": table, "code": code, "prose": prose}
    return environment.from_string((TEMPLATES / template).read_text()).render(**content)


def table(rows: Table, *head: str) -> str:
    lines = [head, ["---"] * len(head), *([cell(text) for text in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(text: str) -> str:
    """A cell's text: no pipe ends it, and outside of code nothing is taken for Markdown."""
    parts = text.replace("|", "\\|").split("`")
    plain = (_TAG.sub("&lt;", _EMPHASIS.sub(r"\\\g<0>", part)) for part in parts[::2])
    parts[::2] = plain
    return "`".join(parts)


def code(names: Iterable[str]) -> str:
    """Names as code, wrapped."""
    return prose(", ".join(f"`{name}`" for name in names))


def prose(paragraph: str) -> str:
    return textwrap.fill(paragraph, 110, break_long_words=False, break_on_hyphens=False)

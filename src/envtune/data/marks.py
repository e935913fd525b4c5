"""Rows of plain text: laid out by a template, masked by a mark.

A row's text is its column `field`, or `input_format` with `{{column}}` put in. What follows the
mark is trained, up to the next question where one is told; without a mark the whole text is.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_COLUMN = re.compile(r"\{\{\s*(.+?)\s*\}\}")
# The end of a turn, written as a token at the end of a layout.
_TURN_END = re.compile(r"\s*(<[^<>\s]+>)\s*\Z")
# How much of a row an error repeats.
_SHOWN = 80


@dataclass(frozen=True)
class Layout:
    """How a row becomes text, and which parts of the text are trained."""

    field: str = "text"
    input_format: str | None = None
    response: str | None = None
    instruction: str | None = None

    def text(self, row: Mapping[str, Any]) -> str:
        """The row as text. Raises ValueError for a column that is not there."""
        if self.input_format is None:
            return self._column(row, self.field)
        return self._filled(self.input_format, row)

    def _filled(self, layout: str, row: Mapping[str, Any]) -> str:
        return _COLUMN.sub(lambda found: self._column(row, found[1]), layout)

    def _column(self, row: Mapping[str, Any], name: str) -> str:
        if name not in row:
            raise ValueError(f"a row has no column {name!r}; it has {', '.join(row)}")
        return "" if row[name] is None else str(row[name])

    def parts(self, row: Mapping[str, Any]) -> list[tuple[str, bool]]:
        """The row's text in order, each part with whether it is trained. Raises ValueError.

        A mark that the layout itself has is no other than that, whatever the columns hold.
        """
        if self.input_format and self.response and not self.instruction:
            before, mark, after = self.input_format.rpartition(self.response)
            if mark:
                return [(self._filled(before + mark, row), False), (self._filled(after, row), True)]
        return list(_parts(text := self.text(row), self.trained(text)))

    def trained(self, text: str) -> list[tuple[int, int]]:
        """The spans of characters that are trained. Raises ValueError where the mark is not."""
        if self.response is None:
            return [(0, len(text))]
        starts = [found.end() for found in re.finditer(re.escape(self.response), text)]
        if not starts:
            shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
            raise ValueError(f"a row has no response_template {self.response!r}: {shown!r}")
        if self.instruction is None:
            return [(starts[-1], len(text))]
        return list(_until(starts, text, self.instruction))


def _parts(text: str, spans: list[tuple[int, int]]) -> Iterator[tuple[str, bool]]:
    done = 0
    for start, end in spans:
        if start >= done:  # a mark inside of an answer begins no other
            yield text[done:start], False
            yield text[start:end], True
            done = end
    if done < len(text):
        yield text[done:], False


def _until(starts: list[int], text: str, mark: str) -> Iterator[tuple[int, int]]:
    for start in starts:
        end = text.find(mark, start)
        yield start, len(text) if end < 0 else end


def of_layout(said: str | Sequence[str] | None, layout: str | None) -> str | None:
    """The mark of a data set: of several the one that its layout has, the last one there. Raises
    ValueError where it has none of them."""
    if said is None or isinstance(said, str):
        return said
    found = [mark for mark in said if mark in (layout or "")]
    if not found:
        told = f"the layout {layout!r}" if layout else "a data set without an input_format"
        raise ValueError(f"response_template {list(said)!r}: {told} has none of them")
    return max(found, key=lambda mark: (str(layout).rindex(mark) + len(mark), len(mark)))


def closed(layout: str, known: Callable[[str], bool]) -> str:
    """`layout` with an end of turn that a server can stop at. One that is written as a token,
    `<|im_end|>`, stands right behind the answer where the tokenizer has it (`known`); where it
    would be cut into letters it goes, and the tokenizer's own end of a text stands for it."""
    found = _TURN_END.search(layout)
    if found is None:
        return layout
    return layout[: found.start()] + (found[1] if known(found[1]) else "")

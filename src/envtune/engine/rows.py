"""An Axolotl data set type for rows of plain text: laid out by a template, masked by a mark.

Named in the YAML as `type: envtune.engine.rows`. A row's text is its column `field`, or
`input_format` with `{{column}}` put in. What follows `response_template` is trained, up to
`instruction_template` where that is set; without one the whole text is. The mark is looked
up in the text, not among tokens, where the same mark may be cut in several ways. What is
trained and what is not are tokenised apart: a server tokenises a prompt that ends where the
answer begins, and a token that holds the end of a mark and a word of the answer would be no
token of the prompt.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from axolotl.prompt_tokenizers import PromptTokenizingStrategy
from axolotl.prompters import Prompter
from pydantic import BaseModel

from envtune.engine.tokens import around, one

_MASKED = -100
_COLUMN = re.compile(r"\{\{\s*(.+?)\s*\}\}")
# The end of a turn, written as a token at the end of a layout.
_TURN_END = re.compile(r"\s*(<[^<>\s]+>)\s*\Z")
# How much of a row an error repeats.
_SHOWN = 80


class RowArgs(BaseModel):
    """The keys that this type adds to Axolotl's configuration."""

    response_template: str | None = None
    instruction_template: str | None = None


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


class RowStrategy(PromptTokenizingStrategy):  # type: ignore[misc]  # axolotl ships no types
    """Tokens and labels of one row, cut at `sequence_len` tokens."""

    def __init__(self, layout: Layout, tokenizer: Any, sequence_len: int) -> None:
        super().__init__(Prompter(), tokenizer, sequence_len=sequence_len)
        self.layout = layout
        self.before, self.after = around(tokenizer)

    def tokenize_prompt(self, prompt: Mapping[str, Any]) -> dict[str, list[int]]:
        ids, labels = [*self.before], [_MASKED] * len(self.before)
        parts = self.layout.parts(prompt)
        for text, trained in parts:
            piece = self.tokenizer(text, add_special_tokens=False)["input_ids"]
            ids += piece
            labels += piece if trained else [_MASKED] * len(piece)
        ends = [] if ids[-1:] == [self.tokenizer.eos_token_id] else self._end()
        ids += ends
        labels += ends if parts[-1][1] else [_MASKED] * len(ends)
        cut = slice(self.sequence_len)
        return {"input_ids": ids[cut], "attention_mask": [1] * len(ids[cut]), "labels": labels[cut]}

    def _end(self) -> list[int]:
        """A text's end is trained with it, whether the tokenizer adds it or not."""
        eos = self.tokenizer.eos_token_id
        return self.after or ([] if eos is None else [eos])


def closed(layout: str, tokenizer: Any) -> str:
    """`layout` with an end of turn that a server can stop at. One that is written as a token,
    `<|im_end|>`, stands right behind the answer where the tokenizer has it; where it would be cut
    into letters it goes, and the tokenizer's own end of a text stands for it."""
    found = _TURN_END.search(layout)
    if found is None:
        return layout
    return layout[: found.start()] + (found[1] if one(tokenizer, found[1]) is not None else "")


def load(tokenizer: Any, cfg: Any, ds_cfg: Mapping[str, Any]) -> RowStrategy:
    """What Axolotl calls for the type."""
    told = ds_cfg.get("input_format")
    layout = Layout(
        field=ds_cfg.get("field") or "text",
        input_format=closed(told, tokenizer) if told else None,
        response=cfg.response_template,
        instruction=cfg.instruction_template,
    )
    return RowStrategy(layout, tokenizer, cfg.sequence_len)

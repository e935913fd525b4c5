"""An Axolotl data set type for rows of plain text: laid out by a template, masked by a mark.

Named in the YAML as `type: envtune.engine.rows`. A row's text is its column `field`, or
`input_format` with `{{column}}` put in. What follows `response_template` is trained, up to
`instruction_template` where that is set; without one the whole text is. The mark is looked
up in the text, not among tokens, where the same mark may be cut in several ways.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from axolotl.prompt_tokenizers import PromptTokenizingStrategy
from axolotl.prompters import Prompter
from pydantic import BaseModel

_MASKED = -100
_COLUMN = re.compile(r"\{\{\s*(.+?)\s*\}\}")
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
        return _COLUMN.sub(lambda found: self._column(row, found[1]), self.input_format)

    def _column(self, row: Mapping[str, Any], name: str) -> str:
        if name not in row:
            raise ValueError(f"a row has no column {name!r}; it has {', '.join(row)}")
        return "" if row[name] is None else str(row[name])

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


def _until(starts: list[int], text: str, mark: str) -> Iterator[tuple[int, int]]:
    for start in starts:
        end = text.find(mark, start)
        yield start, len(text) if end < 0 else end


class RowStrategy(PromptTokenizingStrategy):  # type: ignore[misc]  # axolotl ships no types
    """Tokens and labels of one row, cut at `sequence_len` tokens."""

    def __init__(self, layout: Layout, tokenizer: Any, sequence_len: int) -> None:
        super().__init__(Prompter(), tokenizer, sequence_len=sequence_len)
        self.layout = layout

    def tokenize_prompt(self, prompt: Mapping[str, Any]) -> dict[str, list[int]]:
        text = self.layout.text(prompt)
        spans = self.layout.trained(text)
        encoded = self.tokenizer(
            text,
            truncation=True,
            max_length=self.sequence_len,
            return_offsets_mapping=True,
            return_special_tokens_mask=True,
        )
        ids, added = encoded["input_ids"], encoded["special_tokens_mask"]
        where = zip(encoded["offset_mapping"], added, strict=True)
        on = [not special and _touches(place, spans) for place, special in where]
        self._close(ids, on, added, trained=spans[-1][1] == len(text))
        labels = [token if trained else _MASKED for token, trained in zip(ids, on, strict=True)]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}

    def _close(self, ids: list[int], on: list[bool], added: list[int], *, trained: bool) -> None:
        """The end of a text is trained too, whether the tokenizer marks it or not."""
        eos = self.tokenizer.eos_token_id
        if ids[-1:] == [eos]:
            on[-1] = trained if added[-1] else on[-1]
        elif eos is not None and len(ids) < self.sequence_len:
            ids.append(eos)
            on.append(trained)


def _touches(place: tuple[int, int], spans: list[tuple[int, int]]) -> bool:
    """Whether a token has a character of a span: ` yes` has one after the mark `Answer: `."""
    return any(place[0] < last and place[1] > first for first, last in spans)


def load(tokenizer: Any, cfg: Any, ds_cfg: Mapping[str, Any]) -> RowStrategy:
    """What Axolotl calls for the type. Raises ValueError for a tokenizer without offsets."""
    if not tokenizer.is_fast:
        raise ValueError("response_template needs a fast tokenizer (tokenizer.json)")
    layout = Layout(
        field=ds_cfg.get("field") or "text",
        input_format=ds_cfg.get("input_format"),
        response=cfg.response_template,
        instruction=cfg.instruction_template,
    )
    return RowStrategy(layout, tokenizer, cfg.sequence_len)

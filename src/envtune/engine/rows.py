"""An Axolotl data set type for rows of plain text: laid out by a template, masked by a mark.

Named in the YAML as `type: envtune.engine.rows`. A row's text is its column `field`, or
`input_format` with `{{column}}` put in. What follows `response_template`, of several the one that
the layout has, is trained, up to `instruction_template` where that is set; without one the whole
text is. The mark is looked up in the text, not among tokens, where the same mark may be cut in
several ways. What is trained and what is not are tokenised apart: a server tokenises a prompt that
ends where the answer begins, and a token that holds the end of a mark and a word of the answer
would be no token of the prompt.
"""

from collections.abc import Mapping
from typing import Any

from axolotl.prompt_tokenizers import PromptTokenizingStrategy
from axolotl.prompters import Prompter
from pydantic import BaseModel

from envtune.data.marks import Layout, closed, of_layout
from envtune.engine.tokens import around, one

_MASKED = -100


class RowArgs(BaseModel):
    """The keys that this type adds to Axolotl's configuration."""

    response_template: str | list[str] | None = None
    instruction_template: str | None = None


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


def load(tokenizer: Any, cfg: Any, ds_cfg: Mapping[str, Any]) -> RowStrategy:
    """What Axolotl calls for the type."""
    told = ds_cfg.get("input_format")
    layout = Layout(
        field=ds_cfg.get("field") or "text",
        input_format=closed(told, lambda word: one(tokenizer, word) is not None) if told else None,
        response=of_layout(cfg.response_template, told),
        instruction=cfg.instruction_template,
    )
    return RowStrategy(layout, tokenizer, cfg.sequence_len)

"""Conversations by a chat template: the ids of the whole text, and which of them are trained.

Trained are the tokens that touch a turn's own text, and the end of a turn where one of the
tokens that say so stands within three tokens of it. See axolotl.prompt_strategies.chat_template.
"""

from dataclasses import dataclass
from typing import Any

from envtune.data.batches import BadRow, Batch, Row, Tell
from envtune.engine.data.backend import Backend, Encoded
from envtune.engine.data.types import spans
from envtune.engine.data.types.made import Beyond, Made, coded, no_text
from envtune.engine.data.types.templates import Refusal, Template
from envtune.engine.data.types.turns import Reading

# Tokens between a turn's text and its end.
_NEAR = 3


@dataclass(frozen=True)
class _Turn:
    """A turn of which something may be trained: its row's number, and its characters."""

    row: int
    trained: bool
    span: tuple[int, int] | None


@dataclass(frozen=True)
class Options:
    """What of a conversation is trained."""

    roles: frozenset[str]
    whole: bool
    eos: str  # turn, all, last, none
    eot: str
    eot_tokens: tuple[str, ...]
    hides_system: bool  # a first system turn is looked for by no Mistral


class Chat:
    """Rows of messages."""

    def __init__(
        self, reading: Reading, template: Template, backend: Backend, options: Options
    ) -> None:
        self.reading, self.template, self.backend = reading, template, backend
        self.options = options
        eos = backend.loaded.eos_id
        self.ends: dict[str, set[int]] = {
            "eot": self._one_id(options.eot_tokens),
            "eos": set() if eos is None else {eos},
        }

    def _one_id(self, tokens: tuple[str, ...]) -> set[int]:
        found = [self.backend.ids(token) for token in tokens]
        return {ids[0] for ids in found if len(ids) == 1}

    def make(self, batch: Batch, tell: Tell) -> Made:
        texts: list[str] = []
        turns: list[_Turn] = []
        for i, row in enumerate(batch.rows):
            try:
                text, found = self._read(row, len(texts))
            except Refusal as error:
                tell(BadRow(batch.where(i), "the chat template refuses it", str(error)))
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                what = str(error) if isinstance(error, ValueError) else repr(error)
                tell(BadRow(batch.where(i), "it is no conversation", what))
            else:
                if problem := no_text(text, "the conversation"):
                    tell(BadRow(batch.where(i), *problem))
                    continue
                texts.append(text)
                turns += found
        made = self.backend.encode(texts, special=False)
        self.backend.prove(texts, made, special=False)
        ends = frozenset(self.ends["eot"] | self.ends["eos"])
        return Made(coded(made.ids, self._trained(texts, made, turns)), made.splits, ends)

    def _read(self, row: Row, number: int) -> tuple[str, list[_Turn]]:
        """A row's text, and its turns of which something may be trained."""
        turns, tools = self.reading.read(row)
        text = self.template.render(turns, tools)
        found = []
        for i, turn in enumerate(turns):
            trained = turn.get("training")
            if trained is None:
                trained = self.options.whole or turn.get("role") in self.options.roles
            if not trained and "all" not in (self.options.eos, self.options.eot):
                continue
            if not text:
                raise ValueError("the chat template makes an empty text of it")
            hidden = self.options.hides_system and i == 0 and turn["role"] == "system"
            render = lambda made: self.template.render(made, tools)  # noqa: E731
            span = None if hidden else spans.of_turn(render, turns, i, text)
            found.append(_Turn(number, bool(trained), span))
        return text, found

    def _trained(self, texts: list[str], made: Encoded, turns: list[_Turn]) -> Any:
        import numpy as np

        on: Any = np.zeros(len(made.ids) + 1, np.int32)
        if not turns:
            return on[:-1].astype(bool)
        first, last = self._located(texts, made, turns)
        rows = np.array([turn.row for turn in turns])
        trained = np.array([turn.trained for turn in turns])
        spans_ = trained & (first >= 0)
        np.add.at(on, first[spans_], 1)
        np.add.at(on, last[spans_], -1)
        labels = np.cumsum(on[:-1]) > 0
        for kind, option in (("eot", self.options.eot), ("eos", self.options.eos)):
            hit = self._ending(made, rows, last, np.isin(made.ids, list(self.ends[kind])))
            chosen = hit >= 0
            if option == "last":
                newest = np.full(len(texts), -1)
                newest[rows[chosen]] = hit[chosen]
                labels[newest[newest >= 0]] = True
            elif option in ("all", "turn"):
                labels[hit[chosen & (trained | (option == "all"))]] = True
        return labels

    def _located(self, texts: list[str], made: Encoded, turns: list[_Turn]) -> tuple[Any, Any]:
        """The first id of each turn and the one after its last, or -1 and -1."""
        import numpy as np

        places = self.backend.places(texts, made)
        asked = np.array(
            [
                [-1, -1]
                if turn.span is None
                else [
                    places.origin[turn.row] + places.at(texts[turn.row], place)
                    for place in turn.span
                ]
                for turn in turns
            ]
        )
        first = np.searchsorted(places.ends, asked[:, 0], "right")
        last = np.searchsorted(places.starts, asked[:, 1], "left")
        rows = np.array([turn.row for turn in turns])
        found = asked[:, 0] >= 0
        if (found & (first >= made.splits[1:][rows])).any():
            raise Beyond("a turn lies behind its row's last token")
        found &= first < last
        return np.where(found, first, -1), np.where(found, last, -1)

    def _ending(self, made: Encoded, rows: Any, last: Any, ending: Any) -> Any:
        """The end of each turn: an id's place, or -1."""
        import numpy as np

        begin, end = made.splits[:-1][rows], made.splits[1:][rows]
        hit = np.full(len(rows), -1)
        if not len(made.ids):
            return hit
        for step in range(_NEAR, -1, -1):
            at = np.minimum(last + step, len(ending) - 1)
            near = (last >= 0) & (last + step < end) & ending[at]
            hit[near] = last[near] + step
        # Axolotl looks for the end of a turn that it did not find from the index -1 on: at the
        # row's last id, which it then takes for none, and among the first three.
        lost = (last < 0) & ~ending[np.maximum(end - 1, 0)]
        for step in range(_NEAR - 1, -1, -1):
            at = np.minimum(begin + step, len(ending) - 1)
            near = lost & (begin + step < end) & ending[at]
            hit[near] = begin[near] + step
        return hit

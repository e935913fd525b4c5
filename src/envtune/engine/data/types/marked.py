"""Rows of plain text with a mark, as envtune's own type for Axolotl makes ids of them."""

from collections.abc import Iterator, Mapping
from typing import Any

from envtune.data.batches import BadRow, Batch, Tell
from envtune.data.marks import Layout, closed, of_layout
from envtune.engine.data.backend import Backend
from envtune.engine.data.types.made import Made, coded, ids_of, no_text

Part = tuple[str, bool]


class Marked:
    """What is trained and what is not become ids apart; a row is cut at sequence_len."""

    def __init__(
        self, keys: Mapping[str, Any], backend: Backend, config: Mapping[str, Any]
    ) -> None:
        told = keys.get("input_format")
        self.layout = Layout(
            field=keys.get("field") or "text",
            input_format=closed(told, backend.never_cut.__contains__) if told else None,
            response=of_layout(config.get("response_template"), told),
            instruction=config.get("instruction_template"),
        )
        self.backend, self.length = backend, int(config["sequence_len"])
        self.before, after = backend.around
        eos = backend.loaded.eos_id
        self.end = after or ([] if eos is None else [eos])

    def make(self, batch: Batch, tell: Tell) -> Made:
        import numpy as np

        rows = list(self._rows(batch, tell))
        texts = [text for parts in rows for text, _ in parts]
        made = self.backend.encode(texts, special=False)
        self.backend.prove(texts, made, special=False)
        found, first = [], 0
        for parts in rows:
            found.append(self._row(parts, made, first))
            first += len(parts)
        flat = np.concatenate([np.zeros(0, np.int32), *found])
        ends = frozenset(self.end)
        return Made(flat, np.cumsum([0, *map(len, found)], dtype=np.int64), ends)

    def _row(self, parts: list[Part], made: Any, first: int) -> Any:
        import numpy as np

        pieces = [coded(np.array(self.before, np.int32), False)]
        for number, (_, trained) in enumerate(parts, first):
            ids = made.ids[made.splits[number] : made.splits[number + 1]]
            pieces.append(coded(ids, trained))
        row = np.concatenate(pieces)
        if not len(row) or ids_of(row[-1]) != self.backend.loaded.eos_id:
            row = np.concatenate([row, coded(np.array(self.end, np.int32), parts[-1][1])])
        return row[: self.length]

    def _rows(self, batch: Batch, tell: Tell) -> Iterator[list[Part]]:
        for index, row in enumerate(batch.rows):
            try:
                parts = self.layout.parts(row)
            except ValueError as error:
                tell(BadRow(batch.where(index), "no mark, or no column", str(error)))
                continue
            if wrong := next(filter(None, (no_text(text, "a part") for text, _ in parts)), None):
                tell(BadRow(batch.where(index), *wrong))
            else:
                yield parts

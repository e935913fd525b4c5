"""Plain text, and text in pieces of which each says whether it is trained."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from envtune.data.batches import BadRow, Batch, Tell
from envtune.engine.data.backend import Backend
from envtune.engine.data.types.made import Made, coded, no_text

# A text is read up to so many rows of sequence_len, as in Axolotl.
_ROWS = 64


class Completion:
    """Rows of one text: all of it is trained, in rows of sequence_len."""

    def __init__(self, column: str, backend: Backend, config: Mapping[str, Any]) -> None:
        self.column, self.backend = column, backend
        self.length = int(config["sequence_len"])

    def make(self, batch: Batch, tell: Tell) -> Made:
        import numpy as np

        texts = list(self._texts(batch, tell))
        made = self.backend.encode(texts, special=True)
        self.backend.prove(texts, made, special=True)
        rows = [self._cut(made.ids[a:b]) for a, b in itertools.pairwise(made.splits)]
        sizes = [
            min(self.length, len(row) - start)
            for row in rows
            for start in range(0, len(row), self.length)
        ]
        flat = np.concatenate([np.zeros(0, np.int32), *rows])
        return Made(flat, np.cumsum([0, *sizes], dtype=np.int64))

    def _cut(self, ids: Any) -> Any:
        import numpy as np

        limit, after = _ROWS * self.length, self.backend.after
        if len(ids) > limit:
            ids = np.concatenate([ids[: limit - after], ids[len(ids) - after :]])
        eos = self.backend.loaded.eos_id
        closed = not len(ids) or ids[-1] == eos or len(ids) >= limit
        return ids if closed else np.append(ids, np.int32(eos))

    def _texts(self, batch: Batch, tell: Tell) -> Iterator[str]:
        for i, row in enumerate(batch.rows):
            if self.column not in row:
                what = f"it has no column {self.column!r}; it has {', '.join(row)}"
                tell(BadRow(batch.where(i), "a column is missing", what))
            elif text := row[self.column]:
                if problem := no_text(text, self.column):
                    tell(BadRow(batch.where(i), *problem))
                else:
                    yield text


class Segments:
    """Rows of `segments`, each a `text` and a `label`: whether it is trained."""

    def __init__(self, backend: Backend, config: Mapping[str, Any]) -> None:
        self.backend = backend
        self.whole = bool(config.get("train_on_inputs"))

    def make(self, batch: Batch, tell: Tell) -> Made:
        import numpy as np

        rows = list(self._rows(batch, tell))
        pieces = [piece for row in rows for piece in row]
        texts = [text for _, text in pieces]
        made = self.backend.encode(texts, special=False)
        self.backend.prove(texts, made, special=False)
        labels = np.array([label or self.whole for label, _ in pieces], bool)
        trained: Any = np.repeat(labels, np.diff(made.splits))
        ends = np.cumsum([0, *map(len, rows)])
        eos = self.backend.loaded.eos_id
        ending = frozenset(() if eos is None else (eos,))
        return Made(coded(made.ids, trained), made.splits[ends], ending)

    def _rows(self, batch: Batch, tell: Tell) -> Iterator[list[tuple[bool, str]]]:
        for i, row in enumerate(batch.rows):
            try:
                pieces = [(bool(piece["label"]), piece["text"]) for piece in row["segments"]]
            except (KeyError, TypeError) as error:
                what = f"segments is no list of label and text: {type(error).__name__}: {error}"
                tell(BadRow(batch.where(i), "segments are of another shape", what))
                continue
            wrong = next(filter(None, (no_text(text, "a segment") for _, text in pieces)), None)
            if wrong:
                tell(BadRow(batch.where(i), *wrong))
            else:
                yield pieces

"""What a training learns of its rows: counted over every row, and a few shown with their mask.

The counts are taken of what the Trainer holds, whoever has prepared it. A label that is not
-100 is learned, but for the first, which nothing stands before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from envtune import files
from envtune.runs.contents import SAMPLE

_MASKED = -100
# Rows that are shown, those that are looked through for them, and the ids that tell two apart.
_SHOWN, _LOOKED, _ALIKE = 3, 200, 8


class NothingToLearn(ValueError):
    """No row has a token that is learned."""


@dataclass
class Counts:
    """Rows and tokens of a training set. `unlearned` rows have no token that is learned, and
    `endless` ones learn no end of a turn."""

    rows: int = 0
    tokens: int = 0
    learned: int = 0
    unlearned: int = 0
    endless: int = 0
    longest: int = 0


def tell(dataset: Any, tokenizer: Any, ends: Sequence[int], folder: Path) -> None:
    """Writes the counts and the rows that are shown. Raises NothingToLearn.

    What has no labels of its own, as preferences and streamed rows, is not told.
    """
    if "labels" not in (getattr(dataset, "column_names", None) or ()) or not _on_disk(dataset):
        return
    counts = count(dataset, ends)
    samples = [pieces(tokenizer, row["input_ids"], row["labels"]) for row in _different(dataset)]
    told = {**asdict(counts), "ends": [tokenizer.decode([end]) for end in ends]}
    files.write_json(folder / SAMPLE, {"counts": told, "samples": samples}, durable=False)
    if not counts.learned:
        what = f"of {counts.rows} rows no token is learned: every label is masked"
        raise NothingToLearn(f"{what}; {SAMPLE} in the run's folder shows rows as they are trained")


def _on_disk(dataset: Any) -> bool:
    return hasattr(dataset, "data") and len(dataset) > 0


def count(dataset: Any, ends: Sequence[int]) -> Counts:
    """The counts of a data set with columns input_ids and labels."""
    chunks = zip(*_rows(dataset, ends), strict=True)
    lengths, learned, closed = (np.concatenate(chunk) for chunk in chunks)
    if dataset._indices is not None:  # shuffled, or a part of what lies there
        chosen = dataset._indices.column(0).to_numpy()
        lengths, learned, closed = lengths[chosen], learned[chosen], closed[chosen]
    return Counts(
        rows=len(lengths),
        tokens=int(lengths.sum()),
        learned=int(learned.sum()),
        unlearned=int((learned == 0).sum()),
        endless=int((closed[learned > 0] == 0).sum()),
        longest=int(lengths.max()),
    )


def _rows(dataset: Any, ends: Sequence[int]) -> Iterator[tuple[Any, Any, Any]]:
    """Of each chunk the length of each row, its learned tokens, and the ends among them."""
    for chunk in dataset.data.column("labels").chunks:
        offsets = chunk.offsets.to_numpy()
        labels = chunk.values.to_numpy()[offsets[0] : offsets[-1]]
        offsets = offsets - offsets[0]
        on = labels != _MASKED
        on[offsets[:-1][np.diff(offsets) > 0]] = False
        yield np.diff(offsets), _sums(on, offsets), _sums(on & np.isin(labels, ends), offsets)


def _sums(flags: Any, offsets: Any) -> Any:
    total = np.concatenate([[0], np.cumsum(flags)])
    return total[offsets[1:]] - total[offsets[:-1]]


def _different(dataset: Any) -> list[dict[str, Any]]:
    """The first rows that begin in different ways."""
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    for row in dataset.select(range(min(_LOOKED, len(dataset)))):
        found.setdefault(tuple(row["input_ids"][:_ALIKE]), row)
    return list(found.values())[:_SHOWN]


def pieces(tokenizer: Any, ids: Sequence[int], labels: Sequence[int]) -> list[tuple[str, bool]]:
    """A row as text, cut where learning begins or ends; whether each piece is learned."""
    on = [label != _MASKED for label in labels]
    cuts = [i for i in range(1, len(ids)) if on[i] != on[i - 1]]
    spans = zip([0, *cuts], [*cuts, len(ids)], strict=True)
    return [
        (tokenizer.decode(ids[a:b], clean_up_tokenization_spaces=False), on[a]) for a, b in spans
    ]

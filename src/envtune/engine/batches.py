"""Which rows a batch holds, for whoever has to look at them.

A batch does not say: its documents are looked up among the rows by their tokens, packed or not,
which costs a pass over all rows and is done once, at the end of a training.
"""

from collections.abc import Iterator
from typing import Any

# Row numbers that a line shows.
_SHOWN = 8


def described(trainer: Any, inputs: Any) -> str:
    """The shape of a batch, and the numbers of its rows among those that are trained, from 0."""
    ids = inputs.get("input_ids") if isinstance(inputs, dict) else None
    if ids is None or getattr(ids, "dim", lambda: 0)() != 2:
        return "its rows"
    shape = f"{ids.shape[0]} rows of {ids.shape[1]} tokens"
    found = list(_numbers(trainer.train_dataset, set(_documents(inputs))))
    if not found:
        return shape
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{shape}: of the prepared rows {', '.join(map(str, found[:_SHOWN]))}{more} (from 0)"


def _documents(inputs: dict[str, Any]) -> Iterator[tuple[int, ...]]:
    """The tokens that a batch holds, one entry for each document, without padding at the end."""
    places, mask = inputs.get("position_ids"), inputs.get("attention_mask")
    for row, ids in enumerate(inputs["input_ids"].tolist()):
        kept = ids if mask is None else ids[: int((mask[row] != 0).sum())]
        starts = [0]
        if places is not None:
            starts = [at for at, place in enumerate(places[row].tolist()) if place == 0] or [0]
        for start, end in zip(starts, [*starts[1:], len(kept)], strict=True):
            yield tuple(kept[start:end])


def _numbers(rows: Any, wanted: set[tuple[int, ...]]) -> Iterator[int]:
    if not hasattr(rows, "__len__") or "input_ids" not in (getattr(rows, "column_names", ()) or ()):
        return
    lengths = {len(document) for document in wanted}
    for number, row in enumerate(rows.select_columns("input_ids")):
        if len(row["input_ids"]) in lengths and tuple(row["input_ids"]) in wanted:
            yield number

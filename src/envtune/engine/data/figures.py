"""What manifest.json says of the rows."""

from collections.abc import Mapping
from typing import Any

from envtune.engine.data.spill import Rows


def of_split(rows: Rows, order: Any, shards: list[Any], limit: int) -> dict[str, Any]:
    """Figures of the rows that a split holds."""
    table = rows.table[order]
    lengths, trained = table["kept"].astype("i8"), table["trained"].astype("i8")
    return {
        "rows": len(order),
        "tokens": int(lengths.sum()),
        "trained_tokens": int(trained.sum()),
        "without_trained_token": int((trained == 0).sum()),
        "without_end_of_turn": int((~table["closed"]).sum()),
        "longest": int(lengths.max(initial=0)),
        "lengths": histogram(lengths),
        "packing_fill": round(packing_fill(lengths, limit), 4),
        "shards": shards,
    }


def lost(rows: Rows, shortest: int, longest: int, *, cut: bool) -> dict[str, Any]:
    """Rows that are too long or too short, and the tokens that are not trained on for it."""
    sizes = rows.table["size"].astype("i8")
    long, short = sizes > longest, sizes < shortest
    gone = sizes[long] - (longest if cut else 0)
    return {
        "too_long": {"rows": int(long.sum()), "tokens": int(gone.sum()), "cut": cut},
        "too_short": {"rows": int(short.sum()), "tokens": int(sizes[short].sum())},
    }


def histogram(lengths: Any) -> dict[str, int]:
    """How many rows have up to 16, 32, 64... tokens and more than half as many."""
    import numpy as np

    powers = np.maximum(np.ceil(np.log2(np.maximum(lengths, 1))), 4).astype(int)
    found = np.bincount(powers) if len(powers) else []
    return {str(1 << power): int(count) for power, count in enumerate(found) if count}


def packing_fill(lengths: Any, limit: int) -> float:
    """The part of each row of `limit` tokens that packing would fill, the longest rows first and
    each where it fits best."""
    import numpy as np

    counts = np.bincount(lengths, minlength=limit + 1)
    room: Any = np.zeros(limit + 1, np.int64)  # how many packed rows have so many tokens left
    for length in np.flatnonzero(counts[1:])[::-1] + 1:
        waiting = int(counts[length])
        while waiting:
            fits = np.flatnonzero(room[length:])
            if not len(fits):
                room[limit] += -(-waiting // (limit // length))
            left = int(fits[0] + length) if len(fits) else limit
            placed = min(waiting, int(room[left]))
            room[left] -= placed
            room[left - length] += placed
            waiting -= placed
    packed = int(room.sum())
    return float(lengths.sum()) / (packed * limit) if packed else 0.0


def settings(config: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """What of the configuration decides the rows."""
    return {key: config[key] for key in keys if config.get(key) is not None}

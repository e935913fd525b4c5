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

    counts = np.bincount(np.minimum(lengths, limit), minlength=limit + 1)
    room: Any = np.zeros(
        limit + 1, np.int64
    )  # by tokens that are left: how many packed rows have them
    for length in np.flatnonzero(counts)[::-1]:
        waiting = int(counts[length])
        while waiting and length:
            fits = np.flatnonzero(room[length:])
            left = int(fits[0] + length) if len(fits) else limit
            # No packed row has so much room: new ones take as many of these as they hold.
            each = min(waiting, int(room[left])) if len(fits) else -(-waiting // (limit // length))
            holds = 1 if len(fits) else limit // length
            room[left] -= each if len(fits) else 0
            full, rest = divmod(waiting, holds) if not len(fits) else (each, 0)
            room[left - int(length) * holds] += full
            room[left - int(length) * rest] += 1 if rest else 0
            waiting = 0 if not len(fits) else waiting - each
    packed = int(room.sum())
    return float(lengths.sum()) / (packed * limit) if packed else 0.0


def settings(config: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    """What of the configuration decides the rows."""
    return {key: config[key] for key in keys if config.get(key) is not None}

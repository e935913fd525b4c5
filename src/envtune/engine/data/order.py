"""Which rows are trained, and in which order: as Axolotl merges, filters and splits data sets."""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from envtune.engine.data.spill import Rows
from envtune.errors import Exit, Problem, Refused

# Axolotl's own values where the configuration has none.
LENGTH, SHORTEST = 512, 2


def shuffled(counts: Sequence[int], config: Mapping[str, Any]) -> Any:
    """The numbers of all rows in the order of axolotl.utils.data.shared.merge_datasets, with
    the permutations of datasets.Dataset.shuffle."""
    import numpy as np

    seed, on = config.get("seed"), config.get("shuffle_merged_datasets", True)
    starts = np.cumsum([0, *counts])
    parts = [np.arange(a, b) for a, b in itertools.pairwise(starts)]
    if len(parts) > 1 and config.get("shuffle_before_merging_datasets"):
        parts = [part[np.random.default_rng(seed).permutation(len(part))] for part in parts]
    merged = np.concatenate([np.zeros(0, np.int64), *parts])
    if on and not (len(parts) == 1 and config.get("curriculum_sampling")):
        merged = merged[np.random.default_rng(seed).permutation(len(merged))]
    return merged


def taken(rows: Rows, order: Any, shortest: int, longest: int, config: Mapping[str, Any]) -> Any:
    """The rows of `order` whose length is one to train on. Raises Refused where none may be cut."""
    way = str(config.get("excess_length_strategy") or "drop").lower()
    sizes = rows.table["size"][order]
    if way == "raise" and (sizes > longest).any():
        what = f"a row has {int(sizes.max())} tokens, more than sequence_len {longest}"
        fix = "set AXOLOTL_SEQUENCE_LEN higher, or this to drop or truncate"
        raise Refused([Problem("AXOLOTL_EXCESS_LENGTH_STRATEGY", f"{what}: {fix}", Exit.DATA)])
    on = sizes >= shortest
    return order[on if way == "truncate" else on & (sizes <= longest)]


def learned_from(rows: Rows, order: Any) -> Any:
    """Those of which anything is trained: packing leaves the others out."""
    return order[rows.table["trained"][order] > 0]


def unique(rows: Rows, order: Any) -> Any:
    """The first of equal rows, for dataset_exact_deduplication."""
    import numpy as np

    seen: set[bytes] = set()
    kept = []
    for flat, lengths in rows.read(order):
        ends = np.cumsum(lengths).tolist()
        data = memoryview(flat).cast("B")
        for first, last in zip([0, *ends], ends, strict=False):
            digest = hashlib.blake2b(data[first * 4 : last * 4], digest_size=16).digest()
            kept.append(digest not in seen)
            seen.add(digest)
    return order[np.array(kept, bool)]


def split(order: Any, held: float) -> tuple[Any, Any]:
    """Rows to train on and to evaluate on, as datasets.Dataset.train_test_split has them without
    a shuffle. Raises Refused where nothing would be left to train on."""
    count = len(order)
    tests = int(held) if held > 1 else math.ceil(held * count)
    if not 0 < tests < count:
        what = f"{held:g} of {count} rows leaves no row to train on, or none to evaluate on"
        raise Refused([Problem("AXOLOTL_VAL_SET_SIZE", what, Exit.DATA)])
    return order[: count - tests], order[count - tests :]

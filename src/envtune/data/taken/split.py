"""Which side of the split is a row on? Told by the row itself and the seed, by nothing else.

So a row keeps its side when rows are added, removed or shuffled, and two rows of the same text are
never on both sides. A larger share moves rows to the held side alone. The price is that a share is
met as chance meets it: 5 % of 1,000 rows is 50 give or take 14.
"""

import heapq
from collections.abc import Iterable
from hashlib import blake2b

TRAIN, HELD = "train", "val"
_BITS = 64


def place(digest: bytes, seed: int) -> int:
    """Where a row lies among all that could be: 0 to 2^64 - 2. `digest` tells it from others."""
    key = blake2b(str(seed).encode()).digest()
    drawn = blake2b(digest, key=key, digest_size=_BITS // 8).digest()
    return min(int.from_bytes(drawn, "big"), (1 << _BITS) - 2)


def is_count(size: float) -> bool:
    """Whether `val_set_size` is a number of rows, as Axolotl reads it, and not a share."""
    return size > 1


def below(share: float) -> int:
    """The places below this one are held back, where a share is."""
    return min(int(share * (1 << _BITS)), (1 << _BITS) - 1)


def lowest(count: int, places: Iterable[int]) -> int:
    """The same where a number of rows is held back: those with the lowest places.

    Rows of the same text stay together, so that there may be more.
    """
    return max(heapq.nsmallest(count, places), default=-1) + 1

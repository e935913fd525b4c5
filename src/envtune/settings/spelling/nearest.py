"""Which name was probably meant by one that is wrong."""

import difflib
import functools
import heapq
from collections.abc import Collection, Iterable
from itertools import pairwise, takewhile

# No name is longer; how many names are looked at closely.
_NAME_LENGTH = 200
_LIKELY = 8
# From which ratio on a name is another one's slip, as difflib counts: two letters in ten.
_ALIKE = 0.8


def nearest(name: str, names: Iterable[str]) -> str | None:
    """The name that was probably meant, or None when nothing is close."""
    if not 0 < len(name) <= _NAME_LENGTH:
        return None
    # difflib judges well and slowly: it sees only the few that share most pairs of letters.
    pairs = _pairs(name)
    likely = heapq.nlargest(
        _LIKELY, names, key=lambda other: len(pairs & _pairs(other)) / (len(name) + len(other))
    )
    found = difflib.get_close_matches(name, likely, n=1, cutoff=0.6)
    return found[0] if found else None


def alike(name: str, names: Iterable[str]) -> str | None:
    """The name that this one looks like at once, or None."""
    found = nearest(name, names)
    if found is None:
        return None
    close = difflib.SequenceMatcher(None, name, found).ratio() >= _ALIKE
    return found if close or sorted(name) == sorted(found) else None


def slip(name: str, names: Collection[str]) -> str | None:
    """The name of which this one is a slip of the fingers, or None: other names are others.

    What is made of whole words that names here have was meant as it is, unless it is one letter
    away: wandb_run_name is no slip of wandb_name.
    """
    found = alike(name, names)
    words = {word for other in names for word in other.split("_")}
    return (
        found if found and (not words.issuperset(name.split("_")) or _by_one(name, found)) else None
    )


def _by_one(name: str, other: str) -> bool:
    """Whether one letter more, less or changed lies between two names, or a swap of two."""
    same = sum(
        1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False))
    )
    rest, wanted = name[same:], other[same:]
    swapped = rest[:2] == wanted[:2][::-1] and rest[2:] == wanted[2:]
    return swapped or rest[1:] == wanted or rest == wanted[1:] or rest[1:] == wanted[1:]


def suggestion(name: str, names: Iterable[str]) -> str:
    """The question whether the nearest name was meant, or nothing when none is close."""
    hint = nearest(name, names)
    return f"did you mean {hint}?" if hint else ""


@functools.cache
def _pairs(name: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(name))

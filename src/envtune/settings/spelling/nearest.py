"""Which name was probably meant by one that is wrong."""

import difflib
import functools
import heapq
from collections.abc import Iterable
from itertools import pairwise

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


def slip(name: str, names: Iterable[str]) -> str | None:
    """The name of which this one is a slip of the fingers, or None: other names are others."""
    found = nearest(name, names)
    if found is None:
        return None
    alike = difflib.SequenceMatcher(None, name, found).ratio() >= _ALIKE
    return found if alike or sorted(name) == sorted(found) else None


def suggestion(name: str, names: Iterable[str]) -> str:
    """The question whether the nearest name was meant, or nothing when none is close."""
    hint = nearest(name, names)
    return f"did you mean {hint}?" if hint else ""


@functools.cache
def _pairs(name: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(name))

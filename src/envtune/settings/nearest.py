"""Which name was probably meant by one that is wrong."""

import difflib
import functools
import heapq
import os
from collections.abc import Iterable
from itertools import islice, pairwise

# No name is longer; how many names are looked at closely.
_NAME_LENGTH = 200
_LIKELY = 8
# No path is longer; how many names of a folder are compared.
_PATH_LENGTH, _ENTRIES = 4096, 2000


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


def suggestion(name: str, names: Iterable[str]) -> str:
    """The question whether the nearest name was meant, or nothing when none is close."""
    hint = nearest(name, names)
    return f"did you mean {hint}?" if hint else ""


def near_file(path: str) -> str:
    """What is there instead of a local `path` that is not: `; there is data/train.jsonl`, or
    nothing. One part of it may be misspelled, a folder or the file."""
    found = _near_path(os.path.abspath(path))
    return (
        f"; there is {os.path.relpath(found) if not path.startswith('/') else found}"
        if found
        else ""
    )


def _near_path(path: str) -> str | None:
    folder, name = os.path.split(path)
    if not name or len(path) > _PATH_LENGTH:
        return None
    if not os.path.isdir(folder):
        other = _near_path(folder)
        return other and (_near_path(f"{other}/{name}") or None)
    if os.path.exists(path):
        return path
    try:
        names = {entry.name.lower(): entry.name for entry in islice(os.scandir(folder), _ENTRIES)}
    except OSError:
        return None
    hint = names.get(nearest(name.lower(), names) or "")
    return f"{folder}/{hint}" if hint else None


@functools.cache
def _pairs(name: str) -> frozenset[tuple[str, str]]:
    return frozenset(pairwise(name))

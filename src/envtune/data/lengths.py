"""How many rows a local data set has and how long they are, from a sample: the same of the same
files, whatever the machine. Exact counts are the preparation's."""

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from envtune.data.batches import BadRow
from envtune.data.reading import formats, json_rows, opening, sampling

# Rows from the first on: of each file, and beside rows of elsewhere in it.
_HEAD, _BESIDE = 1000, 64
# What has no names or quotes around the texts is as long as its texts in a file.
_BY_LINE = ("json", "csv", "text")

Seen = tuple[int, int]  # bytes of a row's texts, and of the row in its file, 0 where not known


def measure(path: str) -> tuple[list[int], int | None]:
    """UTF-8 bytes of the texts of some rows, and about how many rows there are: None where the
    files do not tell in a moment. Tokens of a row that has them count four bytes each."""
    sizes: list[int] = []
    rows: list[int | None] = []
    with suppress(OSError, BadRow):
        for file in formats.members(path):
            seen, whole = _sample(file)
            sizes += [texts for texts, _ in seen]
            rows.append(len(seen) if whole else _counted(file, seen))
    return sizes, None if None in rows else sum(count or 0 for count in rows)


def _sample(file: str) -> tuple[list[Seen], bool]:
    """Some rows of a file, and whether they are all."""
    kind = formats.kind_of(file)
    spread = list(_spread(file))
    limit = _BESIDE if spread else _HEAD
    head = [
        (texts := text_bytes(row), texts + _around(row) if kind in _BY_LINE else 0)
        for _, row in islice(formats.rows(file, tell=lambda bad: None), limit)
    ]
    return [*spread, *head], len(head) < limit


def _spread(file: str) -> Iterator[Seen]:
    for start, line in sampling.lines(file):
        with suppress(BadRow):
            yield text_bytes(json_rows.row(line, start, file)), len(line)


def _counted(file: str, seen: list[Seen]) -> int | None:
    """About how many rows a file has, by how much of it those that were seen take."""
    taken = sum(written for _, written in seen)
    if not taken or file.endswith(opening.PACKED):
        return None
    return round(os.path.getsize(file) * len(seen) / taken)


def _around(row: Any) -> int:
    """Bytes of names, quotes and commas around the texts of a row."""
    return sum(len(str(name)) + 6 for name in row) + 2 if isinstance(row, Mapping) else 2


def text_bytes(value: Any) -> int:
    """Bytes of all texts in a row, whatever holds them."""
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if isinstance(value, Mapping):
        ids = value.get("input_ids")
        return 4 * len(ids) if isinstance(ids, list) else sum(map(text_bytes, value.values()))
    return sum(map(text_bytes, value)) if isinstance(value, list) else 0

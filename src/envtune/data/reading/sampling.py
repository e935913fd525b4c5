"""Lines here and there in a file that has a row a line, without reading the rest of it."""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

from envtune import files
from envtune.data.reading import formats, json_rows, opening

# Lines of a file, how much of its beginning tells how it is written, and the longest line.
_LINES, _HEAD, _LONGEST = 64, 1 << 16, 1 << 20
# Of a larger file no line is counted.
_COUNTED = 1 << 30
_PIECE = 1 << 22


def lines(path: str, kind: str | None = None) -> Iterator[tuple[int, bytes]]:
    """Where a line begins, and its bytes: the same lines of the same file, beyond its head. None
    of a file that is packed, or that has no row a line. Raises OSError."""
    if path.endswith(opening.PACKED) or (formats.kind_of(path) or kind) != "json":
        return
    size = os.path.getsize(path)
    if size <= _HEAD or not json_rows.is_by_line(files.head(Path(path), _HEAD)):
        return
    dice = Random(size)
    with Path(path).open("rb") as stream:
        for begin in sorted(dice.randrange(_HEAD, size) for _ in range(_LINES)):
            stream.seek(begin)
            rest = stream.readline(_LONGEST)  # of a line that began before
            line = stream.readline(_LONGEST)
            whole = line.endswith(b"\n") or stream.tell() == size
            if rest.endswith(b"\n") and whole and line.strip():
                yield begin + len(rest), line


def number(path: str, start: int) -> int | str:
    """The number of the line that begins at a byte, or that byte where counting takes too long."""
    if start > _COUNTED:
        return f"byte {start}"
    found = 1
    with Path(path).open("rb") as stream:
        for begin in range(0, start, _PIECE):
            found += stream.read(min(_PIECE, start - begin)).count(b"\n")
    return found

"""Which rows are in a file or a folder, however they are written."""

import glob
import importlib.util
import os
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

from envtune.data.batches import BadRow, Batch, Tell, refuse
from envtune.data.reading import json_rows, opening, tables
from envtune.data.reading.opening import PACKED, decoded, lines

Found = Iterator[tuple[int, Any]]
# Rows of a batch.
SIZE = 4000

# How rows are written, by the end of a file's name, as Axolotl names it (ds_type).
BY_SUFFIX = {
    ".jsonl": "json", ".json": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv",
    ".parquet": "parquet", ".arrow": "arrow", ".txt": "text",
}  # fmt: skip
_INSTEAD = {
    ".xlsx": "save it as CSV", ".xls": "save it as CSV", ".ods": "save it as CSV",
    ".zip": "unpack it", ".tar": "unpack it", ".pkl": "save it as JSON lines",
    ".pt": "save it as JSON lines", ".npy": "save it as JSON lines",
    ".yaml": "save it as JSON lines", ".xml": "save it as JSON lines",
}  # fmt: skip


def _text_rows(stream: IO[bytes], path: str, tell: Tell) -> Found:
    for number, start, line in lines(stream, path):
        try:
            text = decoded(line.rstrip(b"\r\n"), start, f"{path}:{number}")
        except BadRow as bad:
            tell(bad)
            continue
        yield number, {"text": text}


_BY_LINES: dict[str, Callable[[IO[bytes], str, Tell], Found]] = {
    "json": json_rows.rows, "csv": tables.csv_rows, "text": _text_rows,
}  # fmt: skip
_WHOLE: dict[str, Callable[[str], Found]] = {
    "parquet": tables.parquet_rows, "arrow": tables.arrow_rows,
}  # fmt: skip


def kind_of(path: str) -> str | None:
    """How a file's rows are written, by its name, packed or not."""
    return BY_SUFFIX.get(opening.plain_suffix(path).lower())


def batches(
    path: str, kind: str | None = None, size: int = SIZE, tell: Tell = refuse
) -> Iterator[Batch]:
    """The rows of a file, a folder or a pattern, `size` at a time. `tell` hears of each that cannot
    be read, and is left out if that returns. Raises BadRow, OSError."""
    for file in members(path):
        found = rows(file, kind, tell)
        while several := list(islice(found, size)):
            places, read = zip(*several, strict=True)
            yield Batch(file, places, read)


def rows(path: str, kind: str | None = None, tell: Tell = refuse) -> Found:
    """Each row of one file and where it begins. Raises BadRow, OSError."""
    kind = kind_of(path) or kind or _unknown(path)
    if missing := _missing(path, kind):
        what = f"needs {missing}, which is not installed here: pip install {missing}"
        raise BadRow(path, "no reader", what)
    if kind in _WHOLE:
        if path.endswith(PACKED):
            raise BadRow(path, "no rows", f"is packed {kind}, which packs itself: unpack it")
        yield from _WHOLE[kind](path)
        return
    with opening.unpacked(path) as stream:
        yield from _BY_LINES[kind](stream, path, tell)


def _missing(path: str, kind: str) -> str:
    """The library that reads a file and is not here, as where the wheel alone is installed."""
    wanted = "pyarrow" if kind in _WHOLE else "zstandard" if path.endswith(".zst") else ""
    return wanted if wanted and importlib.util.find_spec(wanted) is None else ""


def is_unknown(path: str) -> bool:
    """Whether a file's name says neither how rows are written nor that there are none."""
    return kind_of(path) is None and Path(path).suffix.lower() not in _INSTEAD


def _unknown(path: str) -> str:
    suffix = Path(path).suffix.lower()
    instead = _INSTEAD.get(suffix, f"give it one of the names {', '.join(BY_SUFFIX)}")
    raise BadRow(path, "no rows", f"its name ({suffix or 'no suffix'}) tells no rows; {instead}")


def members(path: str) -> list[str]:
    """The files of a path: itself, those of a folder, or those that a pattern meets, in order.

    Raises OSError where there is none.
    """
    if os.path.isdir(path):
        found = sorted(str(p) for p in Path(path).rglob("*") if kind_of(str(p)) and _shown(p, path))
        if not found:
            raise BadRow(path, "no rows", f"holds no file of rows ({', '.join(BY_SUFFIX)})")
        return found
    if glob.has_magic(path) and not os.path.lexists(path):
        if found := sorted(glob.glob(path, recursive=True)):
            return found
        raise opening.no_file(path)
    return [path]


def _shown(path: Path, folder: str) -> bool:
    """Not hidden, and no card or state beside the rows."""
    parts = path.relative_to(folder).parts
    hidden = any(part.startswith((".", "_")) for part in parts)
    return not hidden and path.name not in (
        "dataset_info.json", "state.json", "dataset_infos.json", "manifest.json",
        "training_state.json", "metadata.json",
    )  # fmt: skip

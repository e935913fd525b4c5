"""Rows of one local file as batches, each row with the line or the number at which it begins.

JSON lines, one JSON list, CSV, TSV, Parquet and Arrow. What cannot be read is a BadRow with its
place.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import IO, Any

from envtune.data.batches import BadRow, Batch, Row

# A field of a CSV holds a whole text; the library's own limit is 128 KiB.
_FIELD = 1 << 28
# What a JSON list is read up to, which has to be in memory as a whole.
_LIST = 1 << 30

Placed = tuple[int, Row]


def batches(path: str, kind: str | None, size: int = 4000) -> Iterator[Batch]:
    """The rows of a file of a `kind` as Axolotl's ds_type has it. Raises BadRow, OSError."""
    suffix = Path(path).suffix.lower()
    if kind in ("parquet", "arrow"):
        yield from _tables(path, kind, size)
        return
    if kind != "json" and suffix not in (".csv", ".tsv"):
        what = "is no JSON, JSON lines, CSV, TSV, Parquet or Arrow file"
        raise BadRow(path, "unknown format", what)
    with Path(path).open(newline="", encoding="utf-8-sig") as stream:
        rows = _json(path, stream) if kind == "json" else _csv(path, stream, suffix)
        while part := list(islice(_decoded(path, rows), size)):
            yield Batch(path, [place for place, _ in part], [row for _, row in part])


def _decoded(path: str, rows: Iterator[Placed]) -> Iterator[Placed]:
    done = 0
    try:
        for done, row in rows:
            yield done, row
    except UnicodeDecodeError as error:
        what = f"is not UTF-8 after line {done}: {error.reason}"
        raise BadRow(path, "not UTF-8", what) from None


def _json(path: str, stream: IO[str]) -> Iterator[Placed]:
    first = stream.read(1)
    while first.isspace():
        first = stream.read(1)
    stream.seek(0)
    yield from _list(path, stream) if first == "[" else _lines(path, stream)


def _lines(path: str, stream: IO[str]) -> Iterator[Placed]:
    for number, text in enumerate(stream, 1):
        if not text.strip():
            continue
        yield number, _row(_parsed(text, f"{path}:{number}"), f"{path}:{number}")


def _list(path: str, stream: IO[str]) -> Iterator[Placed]:
    text = stream.read(_LIST + 1)
    if len(text) > _LIST:
        what = "is one JSON list of more than 1 GiB; write a row a line"
        raise BadRow(path, "too large", what)
    found = _parsed(text, path)
    for number, row in enumerate(found if isinstance(found, list) else [found], 1):
        yield number, _row(row, f"{path}:{number}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno} column {error.colno}" if error.lineno > 1 else ""
        at = place or f"column {error.colno}"
        raise BadRow(where, "not JSON", f"is not JSON at {at}: {error.msg}") from None
    except (RecursionError, ValueError):
        raise BadRow(where, "not JSON", "is not JSON that can be read: nested too deeply") from None


def _row(value: Any, where: str) -> Row:
    if not isinstance(value, Mapping):
        raise BadRow(where, "no object", f"holds {json.dumps(value)[:80]} and no object of columns")
    return value


def _csv(path: str, stream: IO[str], suffix: str) -> Iterator[Placed]:
    csv.field_size_limit(_FIELD)
    head = stream.readline()
    stream.seek(0)
    mark = "\t" if suffix == ".tsv" else max(",;", key=head.count)
    reader = csv.reader(stream, delimiter=mark, strict=True)
    try:
        names = next(reader, [])
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise BadRow(f"{path}:1", "columns twice", f"has the column {twice[0]!r} twice")
        line = reader.line_num
        for values in reader:
            if values:
                yield line + 1, _named(names, values, f"{path}:{line + 1}")
            line = reader.line_num
    except csv.Error as error:
        raise BadRow(f"{path}:{reader.line_num}", "no CSV", f"is no CSV: {error}") from None


def _named(names: list[str], values: list[str], where: str) -> Row:
    if len(names) != len(values):
        what = f"has {len(values)} values for {len(names)} columns"
        raise BadRow(where, "columns missing", what)
    return dict(zip(names, values, strict=True))


def _tables(path: str, kind: str, size: int) -> Iterator[Batch]:
    import pyarrow

    number = 1
    try:
        for table in _records(path, kind, size):
            rows = table.to_pylist()
            yield Batch(path, range(number, number + len(rows)), rows)
            number += len(rows)
    except pyarrow.ArrowException as error:
        what = f"cannot be read as {kind} after row {number - 1}: {str(error).splitlines()[0]}"
        raise BadRow(path, f"no {kind}", what) from None


def _records(path: str, kind: str, size: int) -> Iterable[Any]:
    import pyarrow.parquet

    if kind == "parquet":
        return pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=size)  # type: ignore[no-any-return]
    source = pyarrow.memory_map(path)
    try:
        file = pyarrow.ipc.open_file(source)
    except pyarrow.ArrowInvalid:  # as the datasets library writes it
        return pyarrow.ipc.open_stream(source)  # type: ignore[no-any-return]
    return (file.get_batch(index) for index in range(file.num_record_batches))

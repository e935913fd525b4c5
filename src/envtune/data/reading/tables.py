"""Rows of tables: CSV and its like, Parquet and Arrow."""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from envtune import files
from envtune.data.batches import BadRow, Tell
from envtune.data.reading.opening import LONGEST

# What stands between two columns, told by the first line.
_BETWEEN = (",", ";", "\t", "|")
_ROWS = 1000
Found = tuple[int, Mapping[str, Any]]


class _Text(io.TextIOWrapper):
    """Text with its line ends as they are."""

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream, encoding="utf-8-sig", newline="")


def csv_rows(stream: IO[bytes], path: str, tell: Tell) -> Iterator[Found]:
    """Each row of a CSV and the line that it begins at. `tell` hears of a row that does not fit the
    header. Raises BadRow for what nothing can be read after."""
    csv.field_size_limit(LONGEST)
    text = _Text(stream)
    line = 1
    try:
        head = text.readline(LONGEST)
        between = max(_BETWEEN, key=head.count) if "\t" not in head else "\t"
        names = next(csv.reader([head], delimiter=between), [])
        _header(names, path)
        reader = csv.reader(text, delimiter=between, strict=True)
        before = 0
        for values in reader:
            line, before = before + 2, reader.line_num
            if len(values) == len(names):
                yield line, dict(zip(names, values, strict=True))
            elif values:
                tell(_unlike(names, values, f"{path}:{line}"))
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte {error.object[error.start]:#x}; save it as UTF-8"
        raise BadRow(f"{path}:{line}", "encoding", what) from None
    except csv.Error as error:
        raise BadRow(f"{path}:{line + 1}", "no CSV", f"not CSV: {error}") from None
    finally:
        text.detach()


def _header(names: list[str], path: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRow(f"{path}:1", "a column twice", f"has the column {twice[0] or '(empty)'} twice")
    if not any(names):
        raise BadRow(f"{path}:1", "no header", "has no line of column names")


def _unlike(names: list[str], values: list[str], where: str) -> BadRow:
    what = f"has {len(values)} values for {len(names)} columns ({', '.join(names[:8])})"
    return BadRow(where, "columns", what)


def csv_delimiter(head: bytes) -> str:
    """What stands between the columns of a first line."""
    line = head.split(b"\n", 1)[0].decode(errors="replace")
    return max(_BETWEEN, key=line.count) if "\t" not in line else "\t"


def parquet_rows(path: str) -> Iterator[Found]:
    """Each row of a Parquet file and its number. Raises BadRow, OSError."""
    files.head(Path(path), 1)
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as opened:
            yield from _numbered(batch for batch in opened.iter_batches(_ROWS))
    except ArrowException as error:
        raise BadRow(path, "damaged", f"is no Parquet, or damaged: {_first(error)}") from None


def arrow_rows(path: str) -> Iterator[Found]:
    """Each row of an Arrow file, of either form, and its number. Raises BadRow, OSError."""
    first = files.head(Path(path), 6)
    import pyarrow
    from pyarrow import ipc

    try:
        with pyarrow.memory_map(path) as source:
            if first == b"ARROW1":
                opened = ipc.open_file(source)
                yield from _numbered(map(opened.get_batch, range(opened.num_record_batches)))
            else:
                yield from _numbered(iter(ipc.open_stream(source)))
    except (pyarrow.ArrowException, EOFError) as error:
        raise BadRow(path, "damaged", f"is no Arrow, or damaged: {_first(error)}") from None


def _numbered(tables: Iterator[Any]) -> Iterator[Found]:
    number = 0
    for table in tables:
        for row in table.to_pylist():
            number += 1
            yield number, row


def _first(error: BaseException) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__

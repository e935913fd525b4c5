"""Rows of tables: CSV and its like, Parquet and Arrow."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from envtune import files
from envtune.data.batches import BadRow, Tell
from envtune.data.reading.opening import LONGEST, decoded, lines, look

# What stands between two columns, told by the first line, where it has no tab.
_BETWEEN = (b",", b";", b"|")
_ROWS = 1000
Found = tuple[int, Mapping[str, Any]]


def csv_rows(stream: IO[bytes], path: str, tell: Tell) -> Iterator[Found]:
    """Each row of a CSV and the line that it begins at. `tell` hears of a row that does not fit the
    header. Raises BadRow for what nothing can be read after."""
    import csv

    csv.field_size_limit(LONGEST)
    head = stream.peek(LONGEST).split(b"\n", 1)[0]  # type: ignore[attr-defined]
    between = b"\t" if b"\t" in head else max(_BETWEEN, key=head.count)
    texts = (decoded(line, start, f"{path}:{n}") for n, start, line in lines(stream, path))
    reader = csv.reader(texts, delimiter=between.decode(), strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for values in reader:
            if names is None:
                names = _header(values, path)
            elif len(values) == len(names):
                yield line, dict(zip(names, values, strict=True))
            elif values:
                tell(_unlike(names, values, f"{path}:{line}"))
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadRow(f"{path}:{line}", "no CSV", f"not CSV: {error}") from None


def _header(names: list[str], path: str) -> list[str]:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise BadRow(f"{path}:1", "a column twice", f"has the column {twice[0] or '(empty)'} twice")
    if not any(names):
        raise BadRow(f"{path}:1", "no header", "has no line of column names")
    return names


def _unlike(names: list[str], values: list[str], where: str) -> BadRow:
    what = f"has {len(values)} values for {len(names)} columns ({', '.join(names[:8])})"
    return BadRow(where, "columns", what)


def parquet_rows(path: str) -> Iterator[Found]:
    """Each row of a Parquet file and its number. Raises BadRow, OSError."""
    first = files.head(Path(path), 1 << 10)
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as opened:
            yield from _numbered(batch for batch in opened.iter_batches(_ROWS))
    except ArrowException as error:
        if not first.startswith(b"PAR1"):
            look(first, path)
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

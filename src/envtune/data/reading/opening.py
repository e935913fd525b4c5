"""Bytes of a data file: a regular one, unpacked by its name, line by line and bounded."""

import errno
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from envtune import files
from envtune.data.batches import BadRow

# Bytes of a line, or of one row of a list: what is longer is no row, and is not held whole.
LONGEST = 64 << 20
_CHUNK = 1 << 20
# Bytes of whole lines that are looked at together.
_PIECE = 1 << 18
# A few bytes of zstd may hold 128 KiB: so many are unpacked at a time.
_PACKED = 1 << 10
# Lines without a row between two rows.
EMPTY = 1_000_000
PACKED = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"
_OTHERS = ((b"\xff\xfe\0\0", "UTF-32"), (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"))
# What programs save that is no text, by their first bytes.
_NO_TEXT = {
    b"PK\x03\x04": "a ZIP archive, as a workbook (.xlsx) is: save it as CSV or JSON lines",
    b"PAR1": "Parquet: give it the name .parquet",
    b"ARROW1": "Arrow: give it the name .arrow",
    b"\x1f\x8b": "packed by gzip: give it a name that ends in .gz",
    b"\x28\xb5\x2f\xfd": "packed by zstd: give it a name that ends in .zst",
    b"SQLite format 3": "a database: export its table as CSV",
    b"%PDF": "a PDF: rows have to be JSON lines, CSV or Parquet",
    b"version https://git-lfs": "a pointer of Git LFS and not the file: `git lfs pull` fetches it",
}
# How a page begins that a server sends where it does not send the file.
_PAGE = (b"<!doctype html", b"<html", b"<?xml")
# Bytes that tell what a file is.
_HEAD = 1 << 10


def plain_suffix(path: str) -> str:
    """The suffix that says how rows are written, without the packing's: .jsonl of a.jsonl.gz."""
    stem = Path(path)
    return Path(stem.stem).suffix if stem.suffix in PACKED else stem.suffix


@contextmanager
def unpacked(path: str) -> Iterator[IO[bytes]]:
    """The file's bytes. Raises OSError for what is no regular file; BadRow for a packing that is
    damaged and for what is no text at all."""
    head = files.head(Path(path), _HEAD)
    if path.endswith(PACKED) and not head.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        look(head, path)
    with Path(path).open("rb") as raw:
        if path.endswith(".gz"):
            import gzip

            stream: Any = gzip.GzipFile(fileobj=raw)
        elif path.endswith(".zst"):
            stream = _Zstd(raw)
        else:
            stream = raw
        buffered = io.BufferedReader(stream, _CHUNK)
        try:
            look(buffered.peek(_HEAD)[:_HEAD], path)
            yield buffered
        except (EOFError, zlib.error) as error:
            raise BadRow(path, "damaged", f"is damaged, or cut off: {error}") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise BadRow(path, "damaged", f"is damaged, or cut off: {error}") from None
        except Exception as error:
            if type(error).__module__.startswith("zstandard"):
                raise BadRow(path, "damaged", f"is damaged, or cut off: {error}") from None
            raise


class _Zstd(io.RawIOBase):
    """What a file of zstd's frames holds. Raises EOFError where the last one has no end, of which
    the library's own reader says nothing."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self.raw, self.frames = raw, zstandard.ZstdDecompressor()
        self.frame, self.left, self.open = self.frames.decompressobj(), b"", False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.left:
            packed = self.raw.read(_PACKED)
            if not packed:
                if self.open:
                    raise EOFError("its last frame has no end")
                return 0
            while packed:
                self.left += self.frame.decompress(packed)
                packed, self.open = self.frame.unused_data, not self.frame.eof
                if self.frame.eof:
                    self.frame = self.frames.decompressobj()
        size = min(len(buffer), len(self.left))
        buffer[:size], self.left = self.left[:size], self.left[size:]
        return size


def look(first: bytes, path: str) -> None:
    """Raises BadRow for what is known by its first bytes to hold no rows of text."""
    for mark, name in _OTHERS:
        if first.startswith(mark):
            raise BadRow(f"{path}:1", "encoding", f"is {name} from byte 0; save it as UTF-8")
    for mark, what in _NO_TEXT.items():
        if first.startswith(mark):
            raise BadRow(path, "no rows", f"is {what}")
    _look_at_text(first, path)


def _look_at_text(first: bytes, path: str) -> None:
    if first and not first.strip(b"\0"):
        what = "begins with zero bytes: a copy that was cut off leaves such; copy it again"
        raise BadRow(path, "no rows", what)
    for zero, other in ((1, 0), (0, 1)):  # letters of Latin, every other byte of which is zero
        if len(first) > 3 and not any(first[zero:16:2]) and all(first[other:16:2]):
            what = "is UTF-16 without a byte order mark from byte 0; save it as UTF-8"
            raise BadRow(f"{path}:1", "encoding", what)
    if first.lstrip().lower().startswith(_PAGE) and plain_suffix(path) != ".txt":
        what = "is a page (HTML or XML), as a server answers that does not send the file: "
        raise BadRow(path, "no rows", f"{what}download the file itself")


class Lines:
    """The lines of a file, some at a time. `number`, counted from 1, and `start`, a byte
    of the file, are those of the next line.

    Raises BadRow for a line that is too long to be a row, and for empty ones without end, as those
    of a packed file of nothing.
    """

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self.stream, self.path = stream, path
        self.number, self.start, self.empty = 1, 0, 0

    def pieces(self) -> Iterator[bytes]:
        """Whole lines, as many as are read at once; each piece is then either `taken` or `of`."""
        while piece := self.stream.read(_PIECE):
            if not piece.endswith(b"\n"):
                piece += self.stream.readline(LONGEST + 1)
            yield piece

    def taken(self, piece: bytes, count: int) -> None:
        """Goes on after a piece whose lines are all rows."""
        self.number += count
        self.start += len(piece)
        self.empty = 0

    def of(self, piece: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Number, first byte and bytes of each line of a piece, its end too."""
        for line in io.BytesIO(piece):
            size = len(line)
            if size > LONGEST:
                what = f"longer than {LONGEST >> 20} MiB: no row is, and its end was not looked for"
                raise BadRow(f"{self.path}:{self.number}", "too long a line", f"is {what}")
            if self.start == 0 and line.startswith(BOM):
                yield self.number, len(BOM), line.removeprefix(BOM)
            else:
                yield self.number, self.start, line
            self.empty = self.empty + 1 if line.isspace() else 0
            if self.empty > EMPTY:
                what = f"{EMPTY:,} lines before it are empty, and no more are read"
                raise BadRow(f"{self.path}:{self.number}", "empty lines", what)
            self.number += 1
            self.start += size


def lines(stream: IO[bytes], path: str) -> Iterator[tuple[int, int, bytes]]:
    """Number, first byte and bytes of each line, its end too. Raises BadRow, as Lines."""
    found = Lines(stream, path)
    for piece in found.pieces():
        yield from found.of(piece)


def decoded(line: bytes, start: int, where: str) -> str:
    """A line as text. Raises BadRow with the byte of the file that is no UTF-8."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        what = f"not UTF-8 at byte {start + error.start} of the file; save it as UTF-8"
        raise BadRow(where, "encoding", what) from None


def no_file(path: str) -> OSError:
    """What is said of a path at which nothing is."""
    return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)

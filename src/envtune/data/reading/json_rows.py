"""Rows of JSON: one a line, a list of them, or objects over several lines each.

A list is read object by object, so that one line of any length streams. Rows that Axolotl's
loader would not read are bad here too: names twice in one object, halves of characters.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, Any

from envtune.data.batches import BadRow, Row, Tell
from envtune.data.reading.opening import BOM, LONGEST, Lines, decoded

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
# How a name ends, as programs write it.
_NAMED = (b'":', b'" :')
_BLANK = re.compile(rb'"\s+:')
# From this line on rows are parsed by orjson.
_FEW = 2000
Found = tuple[int, Row]  # the line, and the row


def rows(stream: IO[bytes], path: str, tell: Tell) -> Iterator[Found]:
    """Each row and the line that it begins at. `tell` hears of a line that is no row; after what
    is wrong in a list nothing can be read on, and BadRow is raised."""
    first = stream.peek(_CHUNK)[:_CHUNK].removeprefix(BOM).lstrip()  # type: ignore[attr-defined]
    if first.startswith(b"[") or _spread(first):
        return _values(stream, path)
    return _by_line(stream, path, tell)


def _spread(first: bytes) -> bool:
    """Whether the first object goes over several lines, as a person lays one out."""
    line, _, rest = first.partition(b"\n")
    return line.strip() == b"{" or (
        line.startswith(b"{") and not _whole(line) and not rest.lstrip().startswith(b"{")
        and bool(rest.strip())
    )  # fmt: skip


def _whole(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _by_line(stream: IO[bytes], path: str, tell: Tell) -> Iterator[Found]:
    found, fast = Lines(stream, path), None
    for piece in found.pieces():
        if fast is None and found.number >= _FEW:
            fast = _orjson()
        if fast is not None and (rows := _plain(fast, piece)) is not None:
            yield from enumerate(rows, found.number)
            found.taken(piece, len(rows))
        else:
            yield from _one_by_one(fast, found, piece, tell)


def _plain(parse: Any, piece: bytes) -> list[Row] | None:
    """The rows of lines that are all as programs write them: objects of which no name is written
    twice and none holds another object. None where one may be otherwise.

    Where no blank is between a name and its colon each line has at least as many marks as its row
    has names; as many in all are as many in each.
    """
    if len(piece) > LONGEST or _BLANK.search(piece):
        return None
    lines = piece.split(b"\n")
    if not lines[-1]:
        lines.pop()
    try:
        rows = list(map(parse, lines))
    except ValueError:
        return None
    if set(map(type, rows)) != {dict} or piece.count(_NAMED[0]) != sum(map(len, rows)):
        return None
    return rows


def _one_by_one(parse: Any, found: Lines, piece: bytes, tell: Tell) -> Iterator[Found]:
    for number, start, line in found.of(piece):
        simple = _simple(parse, line) if parse is not None else None
        if simple is None:
            if not line or line.isspace():
                continue
            try:
                simple = row(line, start, f"{found.path}:{number}", parse)
            except BadRow as bad:
                tell(bad)
                continue
        yield number, simple


def _simple(parse: Any, line: bytes) -> Row | None:
    """What most lines say: an object, and no more names in it than it has. None for any other."""
    try:
        found = parse(line)
    except ValueError:
        return None
    if type(found) is dict and line.count(_NAMED[0]) + line.count(_NAMED[1]) <= len(found):
        return found
    return None


def row(line: bytes, start: int, where: str, fast: Any = None) -> Row:
    """What a line says, which begins at a byte of its file. Raises BadRow."""
    return checked(_parsed(fast, line, start, where), line, where)


def is_by_line(first: bytes) -> bool:
    """Whether the rows of a file that begins so are lines."""
    first = first.removeprefix(BOM).lstrip()
    return first.startswith(b"{") and not _spread(first)


def _orjson() -> Any:
    """What parses ten times as fast and takes 4 ms to import, where it is installed."""
    try:
        import orjson
    except ImportError:
        return None
    return orjson.loads


def _parsed(fast: Any, line: bytes, start: int, where: str) -> Any:
    """What a line says. orjson refuses NaN, which the loader takes, and tells no column."""
    with suppress(ValueError):
        if fast is not None:
            return fast(line)
    text = decoded(line, start, where)
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRow(where, "no JSON", _told(error, text)) from None
    if "\\u" in text:
        _characters(row, where)
    return row


def _told(error: Exception, text: str) -> str:
    """What is wrong with a line, and what may be meant."""
    what = _said(error)
    if not isinstance(error, json.JSONDecodeError):
        return what
    if text.lstrip().startswith("{'"):
        what += "; names and texts need double quotes"
    elif error.msg == "Extra data":
        what += "; one object a line"
    elif error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
        what += ": the line is cut off"
    return what


def _said(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        said = error.msg.removesuffix(" at").removesuffix(" starting")
        return f"not JSON: {said} at column {error.colno}"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    return "holds a number of more digits than any text that is trained on"  # Python's own bound


def _characters(row: Any, where: str) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        what = "holds half of a character (a lone surrogate, \\ud800 to \\udfff)"
        raise BadRow(where, "half of a character", what) from None


def checked(row: Any, text: bytes, where: str) -> Row:
    """A row that is an object and names nothing twice. Raises BadRow."""
    if not isinstance(row, dict):
        kind = {list: "a list", str: "a text", type(None): "null"}.get(type(row), "a value")
        raise BadRow(where, "no object", f"is {kind}, and a row is an object with named columns")
    # More may be written than there is in texts; fewer of them is never a name twice.
    if text.count(_NAMED[0]) + text.count(_NAMED[1]) > len(row) and (twice := _twice(row, text)):
        raise BadRow(where, "a name twice", f"has {sorted(twice)[0]} twice")
    return row


def _names(value: Any) -> int:
    """How many names there are in a value, at any depth: fewer than are written where one stands
    twice in its object."""
    inner = value.values() if isinstance(value, dict) else value
    below = sum(_names(one) for one in inner if isinstance(one, dict | list))
    return below + (len(value) if isinstance(value, dict) else 0)


def _twice(row: dict[str, Any], text: bytes) -> set[str]:
    """Names that stand more than once in one object."""
    found: set[str] = set()
    if sum(text.count(mark) - text.count(b"\\" + mark) for mark in _NAMED) <= _names(row):
        return found

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            found.update(name for name, count in Counter(n for n, _ in pairs).items() if count > 1)
        return made

    json.loads(text, object_pairs_hook=keep)
    return found


def _values(stream: IO[bytes], path: str) -> Iterator[Found]:
    """The objects of a list, or objects that follow each other."""
    reader = _Reader(stream, path)
    if reader.next() == "[":
        yield from _of_list(reader)
    while reader.next():
        yield reader.row()


def _of_list(reader: "_Reader") -> Iterator[Found]:
    reader.at += 1
    mark = reader.next()
    while mark != "]":
        if not mark:
            raise reader.bad("the list has no end: cut off")
        yield reader.row()
        mark = reader.next()
        if mark == ",":
            reader.at += 1
            mark = reader.next()
            if mark in ("]", ","):
                raise reader.bad("a comma too many")
        elif mark not in ("]", ""):
            raise reader.bad("a comma is missing")
    reader.at += 1
    if reader.next():
        raise reader.bad("something follows the list's end")


class _Reader:
    """Text that is read as far as a value goes. `at` is the next character, `line` its line."""

    def __init__(self, stream: IO[bytes], path: str) -> None:
        self.stream, self.path = stream, path
        self.text, self.at, self.line, self.read, self.rest = "", 0, 1, 0, b""

    def more(self, size: int = _CHUNK) -> bool:
        """Reads on; False at the end."""
        piece = self.stream.read(size)
        whole = self.rest + piece
        if not self.read:
            whole = whole.removeprefix(BOM)
        self.read += len(piece)
        try:
            text, self.rest = whole.decode(), b""
        except UnicodeDecodeError as error:
            if piece and error.start > len(whole) - 4:  # a character over two pieces
                text, self.rest = whole[: error.start].decode(), whole[error.start :]
            else:
                line = (
                    self.line + self.text.count("\n", self.at) + whole.count(b"\n", 0, error.start)
                )
                decoded(whole, self.read - len(whole), f"{self.path}:{line}")
                raise
        self.text, self.at = self.text[self.at :] + text, 0
        return bool(piece)

    def next(self) -> str:
        """The next character that is no blank; nothing at the end."""
        while True:
            end = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]
            self.line += self.text.count("\n", self.at, end)
            self.at = end
            if end < len(self.text):
                return self.text[end]
            if not self.more():
                return ""

    def bad(self, what: str) -> BadRow:
        """What is wrong at this line."""
        return BadRow(f"{self.path}:{self.line}", "no JSON", f"not JSON: {what}")

    def row(self) -> Found:
        """The next value as a row. Raises BadRow."""
        line, text, value = self._value()
        return line, checked(value, text.encode(errors="surrogatepass"), f"{self.path}:{line}")

    def _value(self) -> tuple[int, str, Any]:
        """The line, the text and what it says. Raises BadRow."""
        size, where = _CHUNK, f"{self.path}:{self.line}"
        while True:
            try:
                row, end = _DECODER.raw_decode(self.text, self.at)
                break
            except json.JSONDecodeError as error:
                # What is cut off by the piece's end fails near it.
                if len(self.text) - self.at > LONGEST or not self.more(size):
                    line = self.line + self.text.count("\n", self.at, error.pos)
                    raise BadRow(f"{self.path}:{line}", "no JSON", _said(error)) from None
                size *= 2
            except (ValueError, RecursionError) as error:
                raise BadRow(where, "no JSON", _said(error)) from None
        line, text = self.line, self.text[self.at : end]
        if "\\u" in text:
            _characters(row, where)
        self.line += text.count("\n")
        self.at = end
        return line, text, row

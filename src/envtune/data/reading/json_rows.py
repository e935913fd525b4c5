"""Rows of JSON: one a line, a list of them, or objects over several lines each.

A list is read object by object, so that one line of any length streams. Rows that Axolotl's
loader would not read are bad here too: names twice in one object, halves of characters.
"""

import json
import re
from collections.abc import Iterator
from typing import IO, Any

from envtune.data.batches import BadRow, Row, Tell
from envtune.data.reading.opening import BOM, LONGEST, decoded, lines

_CHUNK = 1 << 20
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
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
    parse = _parser()
    for number, start, line in lines(stream, path):
        if not line or line.isspace():
            continue
        where = f"{path}:{number}"
        try:
            row = checked(_parsed(parse, line, start, where), line, where)
        except BadRow as bad:
            tell(bad)
            continue
        yield number, row


def _parsed(parse: Any, line: bytes, start: int, where: str) -> Any:
    try:
        return parse(line)
    except (ValueError, RecursionError):
        return _slowly(line, start, where)


def _parser() -> Any:
    """orjson, ten times as fast, where it is installed."""
    try:
        import orjson
    except ImportError:
        return json.loads
    return orjson.loads


def _slowly(line: bytes, start: int, where: str) -> Any:
    """A line that the fast parser refuses: NaN is one that the loader takes. Raises BadRow."""
    text = decoded(line, start, where)
    try:
        row = json.loads(text)
    except RecursionError:
        raise BadRow(where, "no JSON", "is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise BadRow(where, "no JSON", _told(error, text)) from None
    _characters(row, where)
    return row


def _told(error: json.JSONDecodeError, text: str) -> str:
    what = _said(error)
    if text.lstrip().startswith("{'"):
        what += "; names and texts need double quotes"
    elif error.msg == "Extra data":
        what += "; one object a line"
    elif error.pos >= len(text.rstrip()):
        what += ": the line is cut off"
    return what


def _said(error: json.JSONDecodeError) -> str:
    return f"not JSON: {error.msg.removesuffix(' starting at')} at column {error.colno}"


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
    for name in row:
        if text.count(f'"{name}"'.encode(errors="surrogatepass")) > 1 and name in _twice(text):
            raise BadRow(where, "a name twice", f"has {name} twice")
    return row


def _twice(text: bytes) -> set[str]:
    """Names that stand more than once in one object."""
    found: set[str] = set()

    def keep(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            found.update(name for name in names if names.count(name) > 1)
        return made

    json.loads(text, object_pairs_hook=keep)
    return found


def _values(stream: IO[bytes], path: str) -> Iterator[Found]:
    """The objects of a list, or objects that follow each other."""
    reader = _Reader(stream, path)
    listed = reader.next() == "["
    if listed:
        reader.at += 1
    while (mark := reader.next()) not in ("", "]" if listed else ""):
        if mark == "," and listed:
            reader.at += 1
            continue
        line, text, row = reader.value()
        yield line, checked(row, text.encode(errors="surrogatepass"), f"{path}:{line}")
    if listed and not mark:
        raise BadRow(f"{path}:{reader.line}", "no JSON", "not JSON: the list has no end: cut off")
    if listed:
        reader.at += 1
        if reader.next():
            raise BadRow(f"{path}:{reader.line}", "no JSON", "something follows the list's end")


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

    def value(self) -> tuple[int, str, Any]:
        """The line, the text and what it says. Raises BadRow."""
        size, where = _CHUNK, f"{self.path}:{self.line}"
        while True:
            try:
                row, end = _DECODER.raw_decode(self.text, self.at)
                break
            except RecursionError:
                raise BadRow(where, "no JSON", "is nested too deeply") from None
            except json.JSONDecodeError as error:
                # What is cut off by the piece's end fails near it.
                if len(self.text) - self.at > LONGEST or not self.more(size):
                    line = self.line + self.text.count("\n", self.at, error.pos)
                    raise BadRow(f"{self.path}:{line}", "no JSON", _said(error)) from None
                size *= 2
        line, text = self.line, self.text[self.at : end]
        if "\\u" in text:
            _characters(row, where)
        self.line += text.count("\n")
        self.at = end
        return line, text, row

"""Reads files that anybody may have put there, and writes files so that no reader ever sees
half of one.

A neighbour's pipe has no writer, a device no end, and a file of brackets no bottom: each is
told in bounded time and memory, as an OSError or a ValueError with its reason.
"""

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# What no file of a person's or of a run's is longer than, bytes.
LIMIT = 256 << 20
# What a volume says that has no room.
FULL = (errno.ENOSPC, errno.EDQUOT)


def head(path: Path, length: int) -> bytes:
    """The first bytes of a regular file, at most `length`. Raises OSError for anything else."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # no wait for a writer
    try:
        _refuse_others(handle, path)
        with open(handle, "rb", closefd=False) as stream:  # it is open already
            return stream.read(length)
    finally:
        os.close(handle)


def read_bytes(path: Path, limit: int = LIMIT) -> bytes:
    """A regular file of at most `limit` bytes. Raises OSError for anything else."""
    data = head(path, limit + 1)
    if len(data) > limit:
        size = f"{limit >> 20} MiB" if limit >> 20 else f"{limit} bytes"
        raise OSError(errno.EFBIG, f"it holds more than {size}", str(path))
    return data


def read_text(path: Path, limit: int = LIMIT) -> str:
    """The same as text. Raises OSError, or ValueError where it is not UTF-8."""
    return read_bytes(path, limit).decode("utf-8-sig")


def read_json(path: Path, limit: int = LIMIT) -> Any:
    """What a JSON file holds. Raises OSError or ValueError."""
    return parse(read_bytes(path, limit))


def parse(content: bytes | str) -> Any:
    """What JSON says. Raises ValueError, also where it is nested too deeply for the parser."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def put(path: Path, data: bytes) -> None:
    """Writes over what is there, a terminal too. Raises OSError for a pipe that nobody reads."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "wb", buffering=0) as stream:
        stream.write(data)


def _refuse_others(handle: int, path: Path) -> None:
    mode = os.fstat(handle).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Writes JSON aside, syncs it and moves it to its name."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n", durable=durable)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """An error of a file that is open says which: the system does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def free(path: Path) -> int | None:
    """Bytes that may be written below a path, which need not exist yet. None: nobody tells."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    try:
        told = os.statvfs(path)
    except OSError:
        return None
    # A file system of no disk, as /proc, has no blocks at all.
    return told.f_bavail * told.f_frsize if told.f_blocks else None


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes text aside, syncs it (unless not `durable`) and moves it to its name."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with aside.open("w") as stream:
            stream.write(text)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(aside, path)
    except BaseException as error:  # a full disk: each further start would leave one more
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            told = f"{error.strerror}, {len(text.encode()):,} bytes needed"
            raise OSError(error.errno, told, str(path)) from error
        raise


def set_aside(path: Path, folder: Path | None = None) -> Path:
    """Renames what may be the user's to a name that nobody writes, in `folder` or beside."""
    number = 1
    while os.path.lexists(kept := (folder or path.parent) / f"{path.name}.kept-{number}"):
        number += 1
    path.rename(kept)
    return kept


def name_room(error: OSError, place: Path) -> None:
    """Has an error of a full disk say where it was and how many bytes are free there, beside what
    its notes tell. A failed write names no file."""
    error.filename = error.filename or str(place)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        there = next(path for path in (place, *place.absolute().parents) if path.exists())
        told = [
            f"{shutil.disk_usage(there).free:,} bytes are free",
            *getattr(error, "__notes__", ()),
        ]
        error.strerror = f"{error.strerror} ({'; '.join(told)})"

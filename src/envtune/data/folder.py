"""The prepared rows as files that people read and another run trains on.

    train.jsonl  val.jsonl  (train-2.jsonl, ... where rows read in several ways)
    training_state.json     what was asked, what became of the rows, each file with its digest

The rows are as they were read, so that a file reads by the keys beside it. Everything is written
aside, synced and renamed, and the state comes last: a folder without it is no prepared one. What a
killed preparation leaves is known by its mark and goes with the next.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import file_digest, sha256
from pathlib import Path
from typing import IO, Any

from envtune import files
from envtune.data.batches import Row
from envtune.data.taken.preparation import Part
from envtune.settings.data_documents import STATE

CARD = "DATA_CARD.md"
_BEGUN, _PART = ".envtune-preparing", ".part"
# What is written before it has its name.
_ASIDE = (f".train*{_PART}", f".val*{_PART}", f".{CARD}.*", f".{STATE}.*")


class NotOursError(Exception):
    """A folder holds what no preparation has written."""


@dataclass
class File:
    """One file of rows while it is written. `aside` is where, `path` its name in the end."""

    split: str
    path: Path
    keys: Mapping[str, Any]
    aside: Path
    stream: IO[bytes]
    rows: int = 0
    digest: Any = field(default_factory=sha256)

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            text = line(row)
            self.stream.write(text)
            self.digest.update(text)
            self.rows += 1

    def plain(self) -> dict[str, Any]:
        told = {"split": self.split, "path": self.path.name, "rows": self.rows}
        return {**told, "sha256": self.digest.hexdigest(), "keys": dict(self.keys)}


def line(row: Row) -> bytes:
    """A row as one line of JSON, in UTF-8 where its text can be; dates and the like as text."""
    compact = (",", ":")
    try:
        text = json.dumps(row, default=str, separators=compact, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate
        text = json.dumps(row, default=str, separators=compact).encode()
    return text + b"\n"


def state(folder: Path) -> dict[str, Any] | None:
    """What a finished preparation says of a folder, None where there is none. Raises
    NotOursError where something else lies under that name."""
    try:
        told = files.read_json(folder / STATE)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        told = None
    if not isinstance(told, dict) or not told.keys() >= {"asked", "files", "card_sha256"}:
        raise NotOursError(f"{folder / STATE} was not written by a preparation; move it away first")
    return told


@contextmanager
def working(folder: Path) -> Iterator[None]:
    """The folder, made and marked while rows are written into it; nothing new is left where that
    fails. Raises NotOursError where it holds what would be lost, or somebody else works there."""
    folder.mkdir(parents=True, exist_ok=True)
    killed = (folder / _BEGUN).exists()
    with (folder / _BEGUN).open("a") as mark:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise NotOursError(f"{folder} is being prepared by another process") from None
        try:
            _make_sure(folder, killed=killed)
            with _undone(folder):
                yield
        finally:
            for path in (path for aside in _ASIDE for path in folder.glob(aside)):
                path.unlink()
            (folder / _BEGUN).unlink(missing_ok=True)


@contextmanager
def _undone(folder: Path) -> Iterator[None]:
    """Takes away what has its name already where the rest does not come, as on a full disk."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, OSError):
            files.name_room(error, folder)
        _make_sure(folder, killed=True)
        raise


def clear_up(folder: Path) -> None:
    """Takes away what one that was killed after its end has left. Raises NotOursError where
    somebody works there."""
    if (folder / _BEGUN).exists():
        with working(folder):
            pass


def _make_sure(folder: Path, *, killed: bool) -> None:
    """That nothing there is somebody else's; what one that was killed has left goes."""
    ours = _digests(folder)
    for path in sorted(folder.iterdir()):
        if _is_written(path) and path.name not in ours:
            if not killed:
                raise NotOursError(f"{path} was not written by a preparation; move it away first")
            path.unlink()


def _digests(folder: Path) -> dict[str, str]:
    """The files of a finished preparation as they were written; the state is its own."""
    told = state(folder)
    if told is None:
        return {}
    written = {file["path"]: file["sha256"] for file in told["files"]}
    return {**written, CARD: told["card_sha256"], STATE: ""}


def _clear(folder: Path) -> None:
    """Makes room for new rows. What somebody has changed since is kept beside."""
    ours = _digests(folder)
    (folder / STATE).unlink(missing_ok=True)  # what follows is no longer its own
    for path in sorted(folder.iterdir()):
        if not _is_written(path):
            continue
        with path.open("rb") as stream:
            same = ours.get(path.name) in (None, file_digest(stream, "sha256").hexdigest())
        if same:
            path.unlink()
        else:
            files.set_aside(path)


def _is_written(path: Path) -> bool:
    """Whether a preparation writes a file of this name."""
    return path.name in (STATE, CARD) or _is_rows(path)


def _is_rows(path: Path) -> bool:
    return path.suffix == ".jsonl" and path.stem.partition("-")[0] in ("train", "val")


def kept(folder: Path, parts: Iterable[Part], made: list[File]) -> Iterator[Part]:
    """Hands the parts on while their rows are written aside, in a folder that is being worked in;
    `made` gets the files, synced at the end."""
    try:
        for split, keys, batch in parts:
            _at(folder, made, split, keys).add(batch.rows)
            yield split, keys, batch
        for file in made:
            file.stream.flush()
            os.fsync(file.stream.fileno())
    finally:
        for file in made:
            file.stream.close()


def write(folder: Path, parts: Iterable[Part]) -> list[File]:
    """Writes the rows aside where nobody else wants them."""
    made: list[File] = []
    for _ in kept(folder, parts, made):
        pass
    return made


def finish(folder: Path, made: Iterable[File], told: Mapping[str, Any], card: str) -> None:
    """Gives the rows their names; then the card, and the state."""
    _clear(folder)
    for file in made:
        file.aside.replace(file.path)
    files.write_text(folder / CARD, card)
    digest = sha256(card.encode()).hexdigest()
    files.write_json(folder / STATE, {**told, "card_sha256": digest})


def _at(folder: Path, made: list[File], split: str, keys: Mapping[str, Any]) -> File:
    """The file of rows that read so; the first of a split has no number."""
    alike = [file for file in made if file.split == split]
    found = next((file for file in alike if file.keys == keys), None)
    if found is None:
        number = f"-{len(alike) + 1}" if alike else ""
        path = folder / f"{split}{number}.jsonl"
        aside = path.with_name(f".{path.name}{_PART}")
        found = File(split, path, keys, aside, aside.open("wb"))
        made.append(found)
    return found

"""Copies of remote data in the caches: whole or not there, one folder for each version.

    <caches>/envtune/remote/<digest of the addresses>/<digest of what is there>/<label>/<number>/...

A version grows beside its name and gets it once all of it has come. Who fetches holds the lock:
another start waits and finds it there. What a start leaves half is gone on from, as long as the
place still has the same.
"""

import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from envtune import files
from envtune.data.reading import formats
from envtune.errors import Exit, Problem, Refused
from envtune.transfer import addresses
from envtune.transfer.addresses import shown
from envtune.transfer.stores import Found, Objects, Unreached
from envtune.transfer.web import Page

LOG = logging.getLogger("envtune")
_NEWEST, _LOCK, _PART = "newest.json", "lock", ".part"


@dataclass(frozen=True)
class File:
    """A file that is to be had: of which place, its name there and here, below the version."""

    place: Any
    name: str
    path: str
    told: Found


@dataclass
class Copy:
    """A copy of what lies at some addresses."""

    root: Path
    urls: Sequence[str]
    moved: int = 0

    @property
    def base(self) -> Path:
        told = "\n".join(map(addresses.identity, self.urls))
        return self.root / hashlib.sha256(told.encode()).hexdigest()[:16]

    @property
    def label(self) -> str:
        """The word that a run is named by: of the file, the folder or the pattern's folder."""
        stem, _ = addresses.without_pattern(self.urls[0])
        return _word(shown(stem if addresses.scheme(stem) in addresses.STORES else self.urls[0]))

    def there(self) -> Path | None:
        """The newest version that has come whole, or None. Asks nobody."""
        try:
            told = files.read_json(self.base / _NEWEST)
            folder = self.base / str(told["version"]) / self.label
        except (OSError, ValueError, KeyError, TypeError):
            return None
        sizes = told.get("sizes", {})
        return folder if all(_is(folder / name, size) for name, size in sizes.items()) else None

    def members(self, folder: Path) -> list[Path]:
        """The file, or the folder, of each address in a version's folder."""
        return [_only(folder / str(number)) for number in range(len(self.urls))]

    def bring(self, environ: Mapping[str, str]) -> tuple[Path, int, int]:
        """The folder of today's version, how many files came and their bytes.

        Raises Denied, Unreached, Refused and OSError.
        """
        listed = self._listing(environ)
        self.base.mkdir(parents=True, exist_ok=True)
        with self._held():
            return self._brought(listed, environ)

    def _listing(self, environ: Mapping[str, str]) -> list[File]:
        return [file for n, url in enumerate(self.urls) for file in _listed(n, url, environ)]

    def _brought(self, listed: Sequence[File], environ: Mapping[str, str]) -> tuple[Path, int, int]:
        version = _version(listed)
        whole = self.base / version if version else None
        if whole and all(_is(whole / self.label / f.path, f.told.size) for f in listed):
            self._tell(whole.name, listed)
            return whole / self.label, 0, 0
        aside = self.base / f"{version or 'unversioned'}{_PART}"
        if whole and whole.exists() and not aside.exists():
            os.rename(whole, aside)  # somebody has taken a file out
        if not version:
            shutil.rmtree(aside, ignore_errors=True)
        self._make_room(listed, aside)
        count, size = 0, 0
        for file in listed:
            came = self._one(file, aside / self.label / file.path)
            count, size = count + (came is not None), size + (came or 0)
        if version and count and _version(self._listing(environ)) != version:
            raise Unreached(f"{shown(self.urls[0])} has changed while it was fetched")
        made = self.base / (version or _content(aside))
        if made.exists():
            shutil.rmtree(aside if not version else made)
        if aside.exists():
            os.rename(aside, made)
        self._tell(made.name, listed)
        return made / self.label, count, size

    def _tell(self, version: str, listed: Sequence[File]) -> None:
        """Names the newest version, for starts that may not ask."""
        folder = self.base / version / self.label
        sizes = {file.path: (folder / file.path).stat().st_size for file in listed}
        told = {"version": version, "from": [shown(url) for url in self.urls], "sizes": sizes}
        if (self.base / _NEWEST).exists() and files.read_json(self.base / _NEWEST) == told:
            return
        files.write_json(self.base / _NEWEST, told)

    def _one(self, file: File, path: Path) -> int | None:
        """Fetches a file: the bytes that came, or None where it was there. Raises Unreached."""
        if _is(path, file.told.size) and file.told.version:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}{_PART}")
        resumes = file.told.version and file.told.size is not None and part.exists()
        start = part.stat().st_size if resumes else 0
        if start > (file.told.size or 0):
            start = 0
        with part.open("ab" if start else "wb") as stream:
            if start != file.told.size or not start:
                for data in file.place.read(file.name, start):
                    stream.write(data)
                    self.moved += len(data)
            stream.flush()
            os.fsync(stream.fileno())
        size = part.stat().st_size
        if file.told.size is not None and size != file.told.size:
            where = shown(file.place.url)
            raise Unreached(f"{where}: {size} of the {file.told.size} bytes of {path.name} came")
        os.replace(part, path)
        return size - start

    def _make_room(self, listed: Sequence[File], aside: Path) -> None:
        there = sum(p.stat().st_size for p in aside.rglob("*") if p.is_file())
        needed = sum(file.told.size or 0 for file in listed) - there
        if needed > (free := shutil.disk_usage(self.base).free):
            what = f"{_gib(needed)} are to come and {self.base} has {_gib(free)} free"
            raise Refused([Problem("", f"{shown(self.urls[0])}: {what}", Exit.DISK)])

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Alone with these addresses on this machine; the lock ends with its process."""
        with (self.base / _LOCK).open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                LOG.info("fetch: %s: another start fetches it", shown(self.urls[0]))
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def _listed(number: int, url: str, environ: Mapping[str, str]) -> Iterator[File]:
    """The files of rows behind one address. Raises Denied, Unreached and Refused."""
    if addresses.scheme(url) in addresses.WEB:
        page = Page(url)
        told = page.found()[""]
        yield File(page, "", f"{number}/{page.name}", told)
        return
    stem, pattern = addresses.without_pattern(url.rstrip("/"))
    store = Objects(stem, environ)
    held = store.found(pattern)
    if "" in held:  # the object that the address names
        yield File(store, "", f"{number}/{_word(stem, whole=True)}", held[""])
        return
    rows = {name: told for name, told in sorted(held.items()) if _is_of_rows(name)}
    if not rows:
        what = "holds no file of rows" if held else "holds nothing"
        kinds = f" ({', '.join(formats.BY_SUFFIX)})" if held else "; check the address"
        raise Refused([Problem("", f"{shown(url)} {what}{kinds}", Exit.ACCESS)])
    for name, told in rows.items():
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            what = f"{shown(url)} holds {name!r}, which would lie outside of its folder"
            raise Refused([Problem("", what, Exit.DATA)])
        yield File(store, name, f"{number}/{_word(stem)}/{name}", told)


def _is_of_rows(name: str) -> bool:
    hidden = any(part.startswith((".", "_")) for part in PurePosixPath(name).parts)
    return formats.kind_of(name) is not None and not hidden


def _word(url: str, *, whole: bool = False) -> str:
    """The last part of an address, as the name of a folder or, with its ends, of a file."""
    last = url.rstrip("/").rpartition("/")[2]
    name = re.sub(r"[^\w.+ -]", "_", last).lstrip(".")[-120:] or "rows"
    while not whole and formats.kind_of(name):
        name = name.rpartition(".")[0] or "rows"
    return name


def _version(listed: Sequence[File]) -> str:
    """A digest of what is there, or nothing where a place does not tell."""
    if not all(file.told.version for file in listed):
        return ""
    told = [f"{f.path}\0{f.told.size}\0{f.told.version}\n" for f in listed]
    return hashlib.sha256("".join(told).encode()).hexdigest()[:16]


def _content(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder)}\0{digest}\n".encode())
    return total.hexdigest()[:16]


def _only(folder: Path) -> Path:
    """What lies in the folder of one address: a file, or a folder of them."""
    return next(path for path in folder.iterdir() if not path.name.startswith("."))


def _is(path: Path, size: int | None) -> bool:
    return path.is_file() and size in (None, path.stat().st_size)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"

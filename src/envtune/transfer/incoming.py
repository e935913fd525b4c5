"""Brings what an object store holds into a folder: rows for a claim, or a model's files."""

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path, PurePosixPath

from envtune.errors import Exit, Problem, Refused, of_file
from envtune.settings import publish_targets
from envtune.transfer import stores
from envtune.transfer.stores import Denied, Held, Objects, Unreached

LOG = logging.getLogger("envtune")
_SOURCE = "SOURCE"


def copy(url: str, folder: Path, environ: Mapping[str, str]) -> str:
    """Brings every object below `url`, or the one that it names, and tells what came.

    A file that is there and is the same by its digest stays; none is ever half there, and none
    is deleted. Raises Refused.
    """
    stores.load(_store(url))
    try:
        return _copied(Objects(_store(url), environ), folder)
    except Denied as error:
        raise _refused(f"{error}; check the address and its credentials", Exit.ACCESS) from None
    except Unreached as error:
        raise _refused(f"{error}; check the network and the address", Exit.NETWORK) from None


def _refused(message: str, exit_: Exit = Exit.CONFIG) -> Refused:
    return Refused([Problem(_SOURCE, message, exit_)])


def _store(url: str) -> str:
    try:
        place = publish_targets.parse(_SOURCE, url)
    except ValueError:
        place = None
    if place is None or place.id:
        allowed = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix, file:///folder"
        hub = "what the Hub has is trained from as it is, or fetched by `hf download`"
        raise _refused(f"{url!r} is no store; allowed: {allowed}; {hub}")
    return place.url


def _copied(store: Objects, folder: Path) -> str:
    if not (listing := store.listing()):
        raise _refused(f"{store.url} holds nothing", Exit.ACCESS)
    paths = {name: _inside(folder, name or PurePosixPath(store.url).name) for name in listing}
    missing = [name for name, held in sorted(listing.items()) if not _is_there(paths[name], held)]
    for name in missing:
        _bring(store, name, paths[name], listing[name].size)
    size = sum(listing[name].size for name in missing)
    there = len(listing) - len(missing)
    return f"{store.url}: {len(missing)} files, {size:,} bytes, to {folder}; {there} were there"


def _inside(folder: Path, name: str) -> Path:
    """Where an object goes. Raises Refused for a name that leads out of the folder."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        raise _refused(f"holds {name!r}, which would lie outside of {folder}", Exit.DATA)
    return folder / name


def _is_there(path: Path, held: Held) -> bool:
    return path.is_file() and held.equals(path)


def _bring(store: Objects, name: str, path: Path, size: int) -> None:
    """Writes an object aside and moves it to its name. Raises Unreached for half of one."""
    aside = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as stream:
            for block in store.read(name):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())
        if (came := aside.stat().st_size) != size:
            raise Unreached(f"{store.url}: {came} of the {size} bytes of {path.name} came")
        os.replace(aside, path)
    except OSError as error:
        code, _ = of_file(error)
        raise Refused([Problem(str(path), f"cannot be written: {error.strerror}", code)]) from None
    finally:
        with suppress(OSError):  # it would hold the space that is missing
            aside.unlink(missing_ok=True)
    LOG.info("copy: %s", path)

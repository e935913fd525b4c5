"""Prepared rows, kept by what decides them: the same rows, tokenizer and settings, the same files.

An entry is a folder that was written aside, synced and renamed, so a start that was killed has
left none; one whose files are not what was written is made anew.
"""

import contextlib
import fcntl
import functools
import hashlib
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from envtune import files
from envtune.artifacts import checkpoints, manifests
from envtune.engine.data import shards

MANIFEST, KEY = "manifest.json", "key.json"


@functools.cache
def code() -> str:
    """A digest of what reads rows and makes ids of them: another version may do it otherwise."""
    digest = hashlib.sha256(importlib.metadata.version("axolotl").encode())
    here = Path(__file__).parent
    for folder in (here, here.parents[1] / "data"):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def name(key: Mapping[str, Any]) -> str:
    """An entry's name."""
    return hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:32]


def find(folder: Path, key: Mapping[str, Any]) -> tuple[dict[str, Any] | None, str]:
    """The manifest of a whole entry, or None, and why: what is another than it was before.
    Raises OSError where that cannot be read at the moment."""
    entry = folder / name(key)
    if not entry.is_dir():
        return None, _other(folder, key)
    try:
        manifest = files.read_json(entry / MANIFEST)
        wrong = [s["file"] for s in _shards(manifest) if not shards.is_whole(entry / s["file"], s)]
        wrong += [str(path) for path in _described(entry, manifest) if not _is_json(path)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, OSError) and not manifests.tells_of_damage(error):
            raise
        wrong = [str(error)]
    if not wrong:
        return manifest, "the same rows, tokenizer and settings were prepared before"
    return None, f"what was prepared before is damaged ({wrong[0]})"


def _shards(manifest: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    if lost := {"train", "left_out"} - {*manifest, *manifest["splits"]}:
        raise ValueError(f"{MANIFEST} has no {lost.pop()}")
    for split in manifest["splits"].values():
        yield from split["shards"]


def _described(entry: Path, manifest: Mapping[str, Any]) -> Iterator[Path]:
    """The files that datasets loads a split by."""
    for split in ("train", *manifest["splits"]):
        yield from (entry / split / name for name in shards.DESCRIPTIONS)


def _is_json(path: Path) -> bool:
    try:
        return isinstance(files.read_json(path), dict)
    except (OSError, ValueError):
        return False


def _other(folder: Path, key: Mapping[str, Any]) -> str:
    """What tells a key from the entry that has most in common with it."""
    plain = json.loads(json.dumps(key, default=str))
    found: list[list[str]] = []
    for path in folder.glob(f"*/{KEY}"):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # deleted meanwhile, or cut
            old = files.read_json(path)
            found.append([part for part in plain if plain[part] != old.get(part)])
    if not found:
        return "nothing was prepared before"
    return "other than before: " + ", ".join(sorted(found, key=len)[0])


@contextlib.contextmanager
def writing(folder: Path, key: Mapping[str, Any]) -> Iterator[Path]:
    """A folder to write an entry in, that has its name afterwards. One start writes at a time."""
    entry = folder / name(key)
    aside = entry.with_name(f".{entry.name}.partial")
    try:
        empty(aside)
        yield aside
        files.write_json(aside / KEY, key)
        checkpoints.sync_folder(aside)
        shutil.rmtree(entry, ignore_errors=True)
        aside.rename(entry)
    except BaseException:  # a disk that is full has no room for it
        shutil.rmtree(aside, ignore_errors=True)
        raise
    checkpoints.sync_folder(folder)


def empty(folder: Path) -> None:
    """Takes all out of a folder, and makes it where it is not."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def _wait(stream: IO[str], entry: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        said = f"prepare: waiting for another start that prepares the same rows in {entry}"
        print(said, file=sys.stderr, flush=True)
        fcntl.flock(stream, fcntl.LOCK_EX)


@contextlib.contextmanager
def alone(folder: Path, key: Mapping[str, Any]) -> Iterator[None]:
    """Waits for another start that prepares the same, which a kill ends too."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{name(key)}.lock").open("w") as stream:
        with contextlib.suppress(OSError):  # a volume that has no locks has no waiting
            _wait(stream, folder / name(key))
        yield

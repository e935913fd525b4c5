"""Checkpoints and artifacts on disk: which are whole, and how a folder gets its name.

A checkpoint counts when its manifest is there, written and synced after every other file,
and every file has the size that the manifest says. One that is gone on from is compared byte
for byte before (`manifests`). The order of checkpoints is that of their steps: a clock may lie.

What a folder replaces is removed only where every file in it is as it was made. Others may
have edited it or put something there: it is kept beside then.
"""

import logging
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import manifests
from envtune.artifacts.manifests import MANIFEST

LOG = logging.getLogger("envtune")
# Where what is damaged is put aside, beside the checkpoints: no loader looks there.
DAMAGED = "damaged"
_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]{0,17})\Z", re.ASCII)
# What a removal that was killed leaves.
_REMOVED = re.compile(r"\.checkpoint-[0-9]+\.removed\Z", re.ASCII)


def keys(folder: Path) -> set[str]:
    """The keys of the runs that made the checkpoints below `folder`, as their manifests say."""
    found = set()
    for path in ours(folder):
        with suppress(OSError, LookupError, TypeError):
            found.add(str(manifests.read(path)["run"]))
    return found - {""}


def begin(folder: Path, step: int) -> None:
    """Marks a checkpoint as ours before its first file: half of one may be deleted."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_json(folder / MANIFEST, {"step": step})


def commit(folder: Path, step: int, run: str = "") -> None:
    """Syncs every file of a checkpoint and writes its manifest last. `run` is the run's key."""
    manifests.write(folder, step, run)
    sync_folder(folder)


def rotate(folder: Path, limit: int | None, best: Path | None) -> None:
    """Removes the oldest checkpoints but for `limit` (None: all stay), the newest and the best."""
    if not limit:
        return
    found = [path for path in ours(folder) if committed(path)]
    kept = {path.name for path in (*found[-1:], *([best] if best else ()))}
    spare = [path for path in found if path.name not in kept]
    for path in spare[: max(0, len(found) - max(limit, len(kept)))]:
        remove(path)


def remove(path: Path) -> None:
    """Removes a checkpoint. A kill leaves the whole of it, or nothing of its name."""
    gone = path.with_name(f".{path.name}.removed")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def put_aside(path: Path) -> Path:
    """Moves a damaged checkpoint to where nobody takes it for one; returns its place."""
    folder = path.parent / DAMAGED
    folder.mkdir(exist_ok=True)
    number, kept = 1, folder / path.name
    while os.path.lexists(kept):
        number += 1
        kept = folder / f"{path.name}.{number}"
    path.rename(kept)
    return kept


def newest(folder: Path) -> Path | None:
    """The committed checkpoint with the highest step below `folder`, or None."""
    return next((path for path in reversed(_numbered(folder)) if committed(path)), None)


def is_last(folder: Path) -> bool:
    """Whether a checkpoint was made at the last step of its training."""
    noted = state(folder)
    try:
        return bool(0 < noted["max_steps"] <= noted["global_step"])
    except (LookupError, TypeError):
        return False


def drop_uncommitted(folder: Path) -> list[Path]:
    """Removes checkpoints that a kill left half written; returns what was removed.

    One that was not begun here is somebody's own: it is kept beside `folder`.
    """
    for path in _entries(folder):
        if _REMOVED.match(path.name):
            shutil.rmtree(path)
    others = [path for path in _numbered(folder) if manifests.is_missing(path)]
    for path in (*others, *filter(_is_taken_for_one, _entries(folder))):
        kept = files.set_aside(path, folder.parent)
        LOG.warning("%s was not made by this run; it is kept as %s", path, kept)
    halves = [path for path in _numbered(folder) if manifests.is_half(path)]
    for path in halves:
        remove(path)
    return halves


def ours(folder: Path) -> list[Path]:
    """The checkpoints that were begun here, whole or not, the oldest first."""
    return [path for path in _numbered(folder) if (path / MANIFEST).is_file()]


def named(folder: Path) -> list[Path]:
    """Everything that has the name of a checkpoint, whatever it is, the lowest step first.

    Raises OSError where the folder cannot be listed: that is not a folder without any.
    """
    return sorted((path for path in _entries(folder) if _NAME.match(path.name)), key=step_of)


def step_of(path: Path) -> int:
    """The step in a checkpoint's name."""
    return int(path.name.rpartition("-")[2])


def _is_taken_for_one(path: Path) -> bool:
    """Whether Axolotl, which looks for the highest number, would read one from another name."""
    named = path.name.startswith("checkpoint-") and not _NAME.match(path.name)
    return named and path.name.rpartition("-")[2].isdigit()


def _entries(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in os.listdir(folder)]
    except FileNotFoundError:
        return []


def _numbered(folder: Path) -> list[Path]:
    """Those that are folders; none where that cannot be told, which `named` does tell."""
    try:
        return [path for path in named(folder) if path.is_dir() and not path.is_symlink()]
    except OSError as error:
        LOG.debug("%s: %s", error.filename, error.strerror)
        return []


def state(folder: Path) -> dict[str, Any]:
    """What the Trainer noted in a checkpoint; nothing where it is none."""
    try:
        noted = files.read_json(folder / "trainer_state.json")
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def brought(checkpoint: str | None) -> tuple[int, int]:
    """The steps and tokens of a checkpoint that a run starts from: none of its time is in them."""
    noted = state(Path(checkpoint)) if checkpoint else {}
    return int(noted.get("global_step") or 0), int(noted.get("num_input_tokens_seen") or 0)


def committed(folder: Path) -> bool:
    """Whether every file of the manifest is there with its size."""
    try:
        told = manifests.sizes(folder)
        return all((folder / name).stat().st_size == size for name, size in told.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False  # the manifest is missing, damaged, or tells of a file that is


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder last."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def publish(source: Path, target: Path, names: list[str]) -> None:
    """Copies files aside, syncs them and moves the folder to its final name."""
    aside = target.with_name(f".{target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    link(source, aside, names)
    move(aside, target)


def link(source: Path, target: Path, names: list[str]) -> None:
    """Gives files a second name in a folder of their own, and syncs them."""
    target.mkdir(parents=True, exist_ok=True)
    for name in names:
        _link_or_copy(source / name, target / name)
        with (target / name).open("rb") as stream:
            os.fsync(stream.fileno())


def move(aside: Path, target: Path) -> None:
    """Gives a whole folder its final name, in the place of what had it.

    What was made is listed beside: a kill at any point leaves both lists, or the new one.
    """
    listed, made, before = _listed(target), _listing(aside), set()
    if listed.exists():
        before = set(listed.read_text().splitlines())
    _write_list(listed, made | before)
    drop_replaced(target)
    if target.is_dir() and not target.is_symlink() and _listing(target) <= before:
        target.rename(_replaced(target))
    elif os.path.lexists(target):
        kept = files.set_aside(target)
        LOG.warning("%s is not as it was made; it is kept as %s", target, kept)
    aside.rename(target)
    sync_folder(target.parent)
    _write_list(listed, made)
    drop_replaced(target)


def _listing(folder: Path) -> set[str]:
    """A line for each file below a folder: what it is as long as nobody writes to it."""
    found = {str(p.relative_to(folder)): p.lstat() for p in folder.rglob("*") if not p.is_dir()}
    return {f"{told.st_size} {told.st_mtime_ns} {name!r}" for name, told in found.items()}


def _listed(target: Path) -> Path:
    return target.with_name(f".{target.name}.files")


def _half(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")


def _write_list(path: Path, lines: set[str]) -> None:
    """Whole or not at all. What a kill leaves aside has one name, which the next one takes."""
    aside = _half(path)
    with aside.open("w") as stream:
        stream.write("".join(f"{line}\n" for line in sorted(lines)))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, path)


def drop_replaced(target: Path) -> None:
    """Removes what had a folder's name before, and half of its list: a kill may have left them."""
    _half(_listed(target)).unlink(missing_ok=True)
    shutil.rmtree(_replaced(target), ignore_errors=True)


def _replaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")


def _link_or_copy(source: Path, target: Path) -> None:
    """A second name costs nothing; volumes without hard links get a copy."""
    try:
        os.link(source.resolve(), target)  # of a link in a cache, the file
    except OSError:
        shutil.copy2(source, target)


def artifact_files(folder: Path, *, adapter: bool) -> list[str]:
    """The files that make an adapter or a model: weights, configuration, tokenizer."""
    stem = "adapter_" if adapter else ""
    wanted = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.startswith((f"{stem}model", f"{stem}config.json"))
    ]
    extras = ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges",
              "chat_template", "generation_config", "preprocessor_config", "processor_config",
              "spiece", "sentencepiece", "tekken")  # fmt: skip
    beside = [p for p in sorted(folder.iterdir()) if p.name.startswith(extras) and p.is_file()]
    return wanted + [path.name for path in beside]

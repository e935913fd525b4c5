"""Checkpoints and artifacts on disk: which are whole, and how a folder gets its name.

A checkpoint counts when its manifest is there, written and synced after every other file,
and every file has the size that the manifest says.
"""

import os
import shutil
from pathlib import Path

from envtune import files

MANIFEST = "envtune.json"
_FOLDER = "checkpoint-"


def commit(folder: Path, step: int) -> None:
    """Syncs every file of a checkpoint and writes its manifest last."""
    sizes = {}
    for path in _files(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        sizes[str(path.relative_to(folder))] = path.stat().st_size
    files.write_json(folder / MANIFEST, {"step": step, "files": sizes})
    sync_folder(folder)


def newest(folder: Path) -> Path | None:
    """The committed checkpoint with the highest step below `folder`, or None."""
    found = sorted(folder.glob(f"{_FOLDER}*"), key=_step)
    return next((path for path in reversed(found) if committed(path)), None)


def is_last(folder: Path) -> bool:
    """Whether a checkpoint was made at the last step of its training."""
    try:
        state = files.read_json(folder / "trainer_state.json")
        return bool(0 < state["max_steps"] <= state["global_step"])
    except (OSError, ValueError, LookupError, TypeError):
        return False


def drop_uncommitted(folder: Path) -> list[Path]:
    """Removes checkpoints that a kill left half written; returns what was removed."""
    halves = [
        path
        for path in folder.glob(f"{_FOLDER}*")
        if _step(path) >= 0 and path.is_dir() and not path.is_symlink() and not committed(path)
    ]
    for path in halves:
        shutil.rmtree(path)
    return halves


def committed(folder: Path) -> bool:
    """Whether every file of the manifest is there with its size."""
    try:
        sizes = files.read_json(folder / MANIFEST)["files"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False  # the manifest is missing, damaged, or tells of a file that is


def _step(folder: Path) -> int:
    number = folder.name.removeprefix(_FOLDER)
    return int(number) if number.isdigit() else -1


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)


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
    aside.mkdir(parents=True)
    for name in names:
        _link_or_copy(source / name, aside / name)
        with (aside / name).open("rb") as stream:
            os.fsync(stream.fileno())
    move(aside, target)


def move(aside: Path, target: Path) -> None:
    """Gives a whole folder its final name, in the place of what had it."""
    drop_replaced(target)
    if target.exists():
        target.rename(_replaced(target))
    aside.rename(target)
    sync_folder(target.parent)
    drop_replaced(target)


def drop_replaced(target: Path) -> None:
    """Removes what had a folder's name before; a kill may have left it beside."""
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

"""Checkpoints and artifacts on disk: which are whole, which hold usable weights.

A checkpoint counts when its manifest is there, written and synced after every other file,
and every file has the size that the manifest says. Weights are read through numpy, so
that nothing here needs torch.
"""

import json
import math
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envtune.files import write_json

MANIFEST = "envtune.json"
_FOLDER = "checkpoint-"


def commit(folder: Path, step: int) -> None:
    """Syncs every file of a checkpoint and writes its manifest last."""
    sizes = {}
    for path in _files(folder):
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
        sizes[str(path.relative_to(folder))] = path.stat().st_size
    write_json(folder / MANIFEST, {"step": step, "files": sizes})
    sync_folder(folder)


def newest(folder: Path) -> Path | None:
    """The committed checkpoint with the highest step below `folder`, or None."""
    found = sorted(folder.glob(f"{_FOLDER}*"), key=_step)
    return next((path for path in reversed(found) if committed(path)), None)


def is_last(folder: Path) -> bool:
    """Whether a checkpoint was made at the last step of its training."""
    try:
        state = json.loads((folder / "trainer_state.json").read_text())
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
        files = json.loads((folder / MANIFEST).read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
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


def weight_problems(folder: Path, *, adapter: bool) -> list[str]:
    """What keeps an artifact from being loaded or from meaning anything. Empty: nothing."""
    stem = "adapter_model" if adapter else "model"
    config = folder / ("adapter_config.json" if adapter else "config.json")
    files = sorted(folder.glob(f"{stem}*.safetensors"))
    problems = [f"{folder} has no {name}" for name in _lost_shards(folder, stem, files)]
    problems += [] if _is_json(config) else [f"{config} is missing or no JSON"]
    learned = False
    # LoRA starts with B at zero: what was learned shows there and nowhere else.
    telling = "lora_B" if adapter and _has_lora(files) else ""
    for path in files:
        try:
            bad, told = _looked_at(path, telling)
            problems += [f"{path.name}: {_some(bad)} NaN or infinity"] if bad else []
            learned = learned or told
        except UNREADABLE as error:
            problems.append(f"{path.name} cannot be read: {error}")
    if not learned and not problems:
        problems.append(f"{folder}: every weight that training changes is zero")
    return problems


# What a damaged file raises: a header nested a thousand deep too.
UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error,
)  # fmt: skip


def _looked_at(path: Path, telling: str) -> tuple[list[str], bool]:
    """The tensors that hold NaN or infinity; whether one that tells holds anything but zeros."""
    bad: dict[str, None] = {}
    learned = False
    for name, values in tensors(path):
        if _bad(values):
            bad[name] = None
        learned = learned or (telling in name and bool(values.any()))
    return list(bad), learned


def _some(names: list[str]) -> str:
    return f"{names[0]} has" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more have"


def _has_lora(files: list[Path]) -> bool:
    try:
        return any("lora_B" in name for path in files for name in header(path))
    except UNREADABLE:
        return False


def _lost_shards(folder: Path, stem: str, files: list[Path]) -> list[str]:
    """The weight files that should be there: one, or those that the index names."""
    index = folder / f"{stem}.safetensors.index.json"
    if not index.exists():
        return [] if files else [f"{stem}*.safetensors"]
    try:
        named = set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, LookupError, AttributeError, TypeError):
        return [f"readable {index.name}"]
    return sorted(named - {path.name for path in files})


def _is_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_text()), dict)
    except (OSError, ValueError):
        return False


# numpy has no bfloat16 or float8; their bits are enough to tell zero and NaN.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "<u1", "F8_E4M3": "<u1", "F8_E5M2": "<u1",
}  # fmt: skip


def header(path: Path) -> dict[str, Any]:
    """The entries of a safetensors file: name -> dtype, shape, data_offsets."""
    length = _header_length(path)
    if length > path.stat().st_size:
        raise ValueError("its header is longer than the file")
    with path.open("rb") as stream:
        stream.seek(8)
        entries = json.loads(stream.read(length))
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")  # noqa: TRY004
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def _header_length(path: Path) -> int:
    with path.open("rb") as stream:
        length = stream.read(8)
    if len(length) < 8:
        raise ValueError("it ends before its header")
    return int(struct.unpack("<Q", length)[0])


_PART = 2**20  # values


def tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """The values of a safetensors file, in flat arrays of at most `_PART` with their tensor's
    name: memory does not grow with a tensor. bfloat16 comes as float32.

    Source of the format: https://github.com/huggingface/safetensors#format
    """
    import numpy as np

    entries, begin = header(path), _header_length(path) + 8
    end_of_data = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if path.stat().st_size != begin + end_of_data:
        raise ValueError("its length is not what its header says")
    with path.open("rb") as stream:
        for name, entry in entries.items():
            start, end = entry["data_offsets"]
            dtype: Any = np.dtype(_DTYPES[entry["dtype"]])
            count = (end - start) // dtype.itemsize
            if math.prod(entry["shape"]) * dtype.itemsize != end - start:
                raise ValueError(f"the shape of {name} does not fit its bytes")
            stream.seek(begin + start)
            for done in range(0, count, _PART):
                values = np.fromfile(stream, dtype, min(_PART, count - done))
                yield name, _widened(values) if entry["dtype"] == "BF16" else values


def _widened(bits: Any) -> Any:
    import numpy as np

    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _bad(values: Any) -> bool:
    import numpy as np

    return values.dtype.kind == "f" and not np.isfinite(values).all()

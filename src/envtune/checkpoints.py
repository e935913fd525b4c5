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

from envtune.control import write_json

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
    _sync_folder(folder)


def newest(folder: Path) -> Path | None:
    """The committed checkpoint with the highest step below `folder`, or None."""
    found = sorted(folder.glob(f"{_FOLDER}*"), key=_step)
    return next((path for path in reversed(found) if committed(path)), None)


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


def _sync_folder(folder: Path) -> None:
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
        shutil.copy2(source / name, aside / name)
        with (aside / name).open("rb") as stream:
            os.fsync(stream.fileno())
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def artifact_files(folder: Path, *, adapter: bool) -> list[str]:
    """The files that make an adapter or a model: weights, configuration, tokenizer."""
    stem = "adapter_" if adapter else ""
    wanted = [
        path.name
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.startswith((f"{stem}model", f"{stem}config.json"))
    ]
    extras = ("tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges",
              "chat_template", "generation_config")  # fmt: skip
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
    for path in files:
        try:
            for name, values in tensors(path):
                if _bad(values):
                    problems.append(f"{path.name}: {name} has NaN or infinity")
                # LoRA starts with B at zero: what was learned shows there.
                learned = learned or ((not adapter or "lora_A" not in name) and bool(values.any()))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
            problems.append(f"{path.name} cannot be read: {error}")
    if not learned and not problems:
        problems.append(f"{folder}: every weight that training changes is zero")
    return problems


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
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "<u1",
}  # fmt: skip


def tensors(path: Path) -> Iterator[tuple[str, Any]]:
    """Each tensor of a safetensors file as a flat array; bfloat16 comes as float32.

    Source of the format: https://github.com/huggingface/safetensors#format
    """
    import numpy as np

    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    size = path.stat().st_size - 8 - length
    if size != max((entry["data_offsets"][1] for entry in header.values()), default=0):
        raise ValueError("its length is not what its header says")
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        dtype: Any = np.dtype(_DTYPES[entry["dtype"]])
        if math.prod(entry["shape"]) * dtype.itemsize != end - start:
            raise ValueError(f"the shape of {name} does not fit its bytes")
        values = np.fromfile(
            path, dtype, (end - start) // dtype.itemsize, offset=8 + length + start
        )
        if entry["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        yield name, values


def _bad(values: Any) -> bool:
    import numpy as np

    return values.dtype.kind == "f" and not np.isfinite(values).all()

"""Writes a file of safetensors tensor by tensor, so that no more than one is ever in memory.

Source of the format: https://github.com/huggingface/safetensors#format
"""

import json
import math
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.artifacts.checkpoints import sync_folder

# Of the types that a merge can change.
_SIZES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Entry:
    """One tensor of a file: `dtype` in the format's words, and how many bytes it takes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int

    def reshaped(self, shape: tuple[int, ...]) -> "Entry":
        size = self.size if shape == self.shape else math.prod(shape) * _SIZES[self.dtype]
        return Entry(self.name, self.dtype, shape, size)


def read_entries(path: Path) -> tuple[list[Entry], dict[str, str]]:
    """The tensors of a file as they lie in it, and its metadata."""
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        found = json.loads(stream.read(length))
    metadata = found.pop("__metadata__", {})
    placed = sorted(found.items(), key=lambda item: item[1]["data_offsets"])
    return [_entry(name, **told) for name, told in placed], metadata


def _entry(name: str, dtype: str, shape: Sequence[int], data_offsets: Sequence[int]) -> Entry:
    begin, end = data_offsets
    return Entry(name, dtype, tuple(shape), end - begin)


def head(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a file with these tensors, in this order."""
    table: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for entry in entries:
        offsets = [offset, offset := offset + entry.size]
        table[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": offsets}
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def is_whole(path: Path, entries: Sequence[Entry], metadata: Mapping[str, str]) -> bool:
    """Whether a file is there that begins and ends where `write` would."""
    expected = head(entries, metadata)
    try:
        with path.open("rb") as stream:
            begins = stream.read(len(expected)) == expected
        return begins and path.stat().st_size == len(expected) + sum(e.size for e in entries)
    except FileNotFoundError:
        return False


def write(
    path: Path,
    entries: Sequence[Entry],
    metadata: Mapping[str, str],
    tensor_of: Callable[[str], Any],
) -> None:
    """Writes a file aside, syncs it and moves it to its name."""
    aside = path.with_name(f".{path.name}.partial")
    with aside.open("wb") as stream:
        stream.write(head(entries, metadata))
        for entry in entries:
            stream.write(_bytes(tensor_of(entry.name), entry))
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(aside, path)
    sync_folder(path.parent)


def _bytes(tensor: Any, entry: Entry) -> Any:
    import torch

    flat = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    if flat.nbytes != entry.size:
        raise AssertionError(f"{entry.name} has {flat.nbytes} bytes, and not {entry.size}")
    return flat.data

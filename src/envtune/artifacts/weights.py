"""What lies in safetensors files, and whether it means anything.

Weights are read through numpy, so that nothing here needs torch.
"""

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envtune.files import head, parse, read_json

# What a damaged file raises: a header nested a thousand deep too.
UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error,
)  # fmt: skip
# numpy has no bfloat16 or float8; their bits are enough to tell zero and NaN.
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "<u1", "F8_E4M3": "<u1", "F8_E5M2": "<u1",
}  # fmt: skip
_WIDTHS = {name: int(dtype[2:]) for name, dtype in _DTYPES.items()}  # bytes
_PART = 2**20  # values


def problems(folder: Path, *, adapter: bool) -> list[str]:
    """What keeps an artifact from being loaded or from meaning anything. Empty: nothing."""
    stem = "adapter_model" if adapter else "model"
    config = folder / ("adapter_config.json" if adapter else "config.json")
    files = sorted(folder.glob(f"{stem}*.safetensors"))
    found = [f"{folder} has no {name}" for name in _lost_shards(folder, stem, files)]
    found += [] if _is_json(config) else [f"{config} is missing or no JSON"]
    learned = False
    # LoRA starts with B at zero: what was learned shows there and nowhere else.
    telling = "lora_B" if adapter and _has_lora(files) else ""
    for path in files:
        try:
            bad, told = _looked_at(path, telling)
            found += [f"{path.name}: {_some(bad)} NaN or infinity"] if bad else []
            learned = learned or told
        except UNREADABLE as error:
            found.append(f"{path.name} cannot be read: {error}")
    if not learned and not found:
        found.append(f"{folder}: every weight that training changes is zero")
    return found


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
        named = set(read_json(index)["weight_map"].values())
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return [f"readable {index.name}"]
    return sorted(named - {path.name for path in files})


def _is_json(path: Path) -> bool:
    try:
        return isinstance(read_json(path), dict)
    except (OSError, ValueError):
        return False


def header(path: Path) -> dict[str, Any]:
    """The entries of a safetensors file: name -> dtype, shape, data_offsets."""
    length = _header_length(path)
    if length > path.stat().st_size:
        raise ValueError("its header is longer than the file")
    with path.open("rb") as stream:
        stream.seek(8)
        entries = parse(stream.read(length))
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")  # noqa: TRY004
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says, and each tensor as its shape."""
    try:
        entries = header(path)
        for entry in entries.values():
            start, end = entry["data_offsets"]
            size = _WIDTHS.get(entry["dtype"])
            if size and math.prod(entry["shape"]) * size != end - start:
                return False
        last = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        return path.stat().st_size == _header_length(path) + 8 + last
    except UNREADABLE:
        return False


def _header_length(path: Path) -> int:
    length = head(path, 8)
    if len(length) < 8:
        raise ValueError("it ends before its header")
    return int(struct.unpack("<Q", length)[0])


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

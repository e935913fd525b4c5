"""Weights that bitsandbytes keeps in 4 bits: which they are, their numbers again, their products.

Beside the packed bytes of a weight X, or in another shard, lie X.absmax, X.quant_map, with
double quantisation X.nested_*, and X.quant_state.bitsandbytes__nf4 or __fp4: JSON as bytes,
with the shape and type that X had.

Source of the format: bitsandbytes.functional.QuantState
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from envtune.engine.export.embeddings import load
from envtune.engine.export.shards import Entry

_STATE = "quant_state.bitsandbytes__"
_PART = re.compile(rf"(.+)\.(?:(?:nested_)?(?:absmax|quant_map)|{re.escape(_STATE)}(?:nf4|fp4))")
_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}

Parts = Mapping[str, Path]
"""The names of the tensors that unpack a weight, and the file that each lies in."""


def packed(folder: Path, files: Mapping[str, Sequence[Entry]]) -> dict[str, Parts]:
    """The weights of a model that are in 4 bits, by name."""
    found: dict[str, dict[str, Path]] = {}
    for file, entries in files.items():
        for entry in entries:
            if match := _PART.fullmatch(entry.name):
                found.setdefault(match[1], {})[entry.name] = folder / file
    return {name: parts for name, parts in found.items() if _state(name, parts)}


def _state(name: str, parts: Parts) -> str:
    return next((part for part in parts if part.startswith(f"{name}.{_STATE}")), "")


def unpacked(entries: Sequence[Entry], weights: Mapping[str, Parts]) -> list[Entry]:
    """The tensors of a file, those of `weights` as they lie once they are dequantised."""
    parts = {part for parts in weights.values() for part in parts}
    kept = [entry for entry in entries if entry.name not in parts]
    return [_whole(e, weights[e.name]) if e.name in weights else e for e in kept]


def _whole(entry: Entry, parts: Parts) -> Entry:
    state = _state(entry.name, parts)
    told = json.loads(load(parts[state], state).numpy().tobytes())
    return replace(entry, dtype=_DTYPES[told["dtype"]]).reshaped(tuple(told["shape"]))


def dequantised(tensor: Any, parts: Parts) -> Any:
    """A weight, [out, in] in the type that it had, from its packed bytes."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    told = {name: load(path, name) for name, path in parts.items()}
    return dequantize_4bit(tensor, QuantState.from_dict(told, device=tensor.device))


def keep_exact(model: Any, dtype: Any = None) -> None:
    """Has the 4-bit layers of a loaded model give the same products on every processor.

    On one with AVX512-BF16 bitsandbytes packs a layer anew at its first product outside of
    training, for good: scales and products are rounded to bfloat16, no gradient passes the
    layer any more, and PEFT reads other numbers for DoRA. `dtype`: what to compute in, where
    that is not the base's own.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
            if dtype is not None:
                module.compute_dtype = dtype

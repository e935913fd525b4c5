"""The rows of embeddings that an adapter brings, as rows of its base or as matrices.

Read tensor by tensor: neither the base nor the adapter is ever in memory as a whole.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envtune.artifacts import adapterfiles, weights
from envtune.artifacts.adapters import OUTPUT, Adapter, Embedding, lora_pairs, split
from envtune.engine.export.shards import Entry

_PREFIX = "base_model.model."
_TYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_FIRST = ("lora_A.weight", "lora_embedding_A")


class Rows:
    """The rows of layers before and after a training."""

    def __init__(self, adapter: Path, base: Path) -> None:
        self._adapter = adapter / adapterfiles.WEIGHTS
        self._base = {
            name: base / shard
            for shard in adapterfiles.shards(base)
            for name in weights.header(base / shard)
        }

    def before(self, e: Embedding) -> Any:
        """[vocabulary, hidden] as the base has it."""
        return load(self._base[e.tensor], e.tensor)

    def trained(self, e: Embedding) -> Any:
        """[tokens, hidden]: the rows of `e.indices`."""
        return load(self._adapter, e.tokens)

    def after(self, e: Embedding) -> Any:
        """[vocabulary, hidden] as the training left it."""
        rows = load(self._adapter, e.rows) if e.rows else self.before(e)
        if e.tokens:
            rows[list(e.indices)] = self.trained(e).to(rows.dtype)
        return rows


def load(path: Path, name: str) -> Any:
    """One tensor of a file."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as stream:
        return stream.get_tensor(name)


def cast(tensor: Any, dtype: str) -> Any:
    """A tensor in a type that is named as in a file."""
    import torch

    return tensor.to(getattr(torch, _TYPES[dtype]))


def entry(name: str, tensor: Any) -> Entry:
    """A tensor's entry in a file."""
    dtype = next(k for k, v in _TYPES.items() if str(tensor.dtype) == f"torch.{v}")
    return Entry(name, dtype, tuple(tensor.shape), tensor.nbytes)


def matrices(rows: Rows, trained: Sequence[Embedding], *, tied: bool) -> dict[str, Any]:
    """The change of single tokens' rows as LoRA of rank [tokens], by the adapter's names.

    A matrix that picks the rows is one of the pair, the change of those rows the other. An
    output layer that is tied to the embedding changes with it and gets its own pair.
    """
    made: dict[str, Any] = {}
    for e in trained:
        if not e.tensor:
            continue  # tied: the other's change is its own
        before, ids = rows.before(e), list(e.indices)
        change = rows.trained(e).float() - before[ids].float()
        picked = _picking(ids, len(before))
        if e.module.endswith(OUTPUT):
            made |= _of_output(e.module, change, picked)
            continue
        made |= _of_input(e.module, change, picked)
        if tied:
            made |= _of_output(OUTPUT, change, picked)
    return made


def _picking(ids: Sequence[int], vocabulary: int) -> Any:
    """[tokens, vocabulary]: one at each id."""
    import torch

    picked = torch.zeros(len(ids), vocabulary)
    picked[range(len(ids)), ids] = 1
    return picked


def _of_input(module: str, change: Any, picked: Any) -> dict[str, Any]:
    below = f"{_PREFIX}{module}.lora_embedding_"
    return {f"{below}A": picked, f"{below}B": change.T.contiguous()}


def _of_output(module: str, change: Any, picked: Any) -> dict[str, Any]:
    below = f"{_PREFIX}{module}.lora_"
    return {f"{below}A.weight": change, f"{below}B.weight": picked.T.contiguous()}


def with_matrices(adapter: Adapter, made: Mapping[str, Any]) -> dict[str, Any]:
    """The adapter's configuration with `made`, which count as they are: their scale is 1.

    Every layer is named in full: a list of endings, or one with a choice of layers, could
    leave out the embedding or take in more.
    """
    config = adapter.config
    parts = {split(name): len(matrix) for name, matrix in made.items()}
    size = {module: rank for (module, part), rank in parts.items() if part in _FIRST}
    alpha = {m: math.sqrt(rank) if config.get("use_rslora") else rank for m, rank in size.items()}
    return {
        **config,
        "target_modules": sorted({*size, *(module for module, _ in lora_pairs(adapter))}),
        **dict.fromkeys(("layers_to_transform", "layers_pattern", "exclude_modules")),
        "trainable_token_indices": None,
        # The first that fits counts.
        "rank_pattern": {**size, **(config.get("rank_pattern") or {})},
        "alpha_pattern": {**alpha, **(config.get("alpha_pattern") or {})},
    }

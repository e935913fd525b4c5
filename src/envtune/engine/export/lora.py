"""What a LoRA adapter holds for each tensor of its base, and PEFT's arithmetic on one tensor.

Bit for bit what `PeftModel.from_pretrained(base, adapter).merge_and_unload()` does on a CPU:
PEFT holds LoRA weights in float32 there. What is not understood is refused.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.artifacts.adapterfiles import CONFIG, WEIGHTS
from envtune.artifacts.modelfiles import read_json
from envtune.artifacts.weights import header
from envtune.errors import Exit, Problem, Refused

_PREFIX = "base_model.model."
# Every other key has to be unset: it would change what the weights mean.
_UNDERSTOOD = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "corda_config",
    "ensure_weight_tying", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "loftq_config", "lora_alpha",
    "lora_dropout", "lora_ga_config", "megatron_core", "modules_to_save", "peft_type",
    "peft_version", "qalora_group_size", "r", "rank_pattern", "revision", "target_modules",
    "task_type", "trainable_token_indices", "use_dora", "use_rslora",
}  # fmt: skip
# The other ways to begin take something away from the base's weights.
_BEGINNINGS = (None, True, False, "gaussian", "eva", "orthogonal")

_MODULE_PARTS = {
    re.compile(r"(.+)\.lora_A\.weight"): "a",
    re.compile(r"(.+)\.lora_B\.weight"): "b",
    re.compile(r"(.+)\.lora_embedding_A"): "a",
    re.compile(r"(.+)\.lora_embedding_B"): "b",
    re.compile(r"(.+)\.lora_magnitude_vector(?:\.weight)?"): "magnitude",
    re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta"): "rows",
}
_WRAPPED = re.compile(r"(.+?)\.(?:token_adapter\.)?(base_layer|original_module)\.(.+)")
_SAVED = re.compile(r"(.+?)\.modules_to_save\.(.+)")


class Unmergeable(Refused):
    """An adapter and a base that cannot be merged; one line for the user."""

    def __init__(self, text: str) -> None:
        super().__init__([Problem("", text, Exit.ARTIFACT)])


@dataclass
class Change:
    """What the adapter holds for one tensor: keys of its file, "" for none.

    `frozen` is the base's tensor as training had it, such as a resized embedding; `saved`
    was trained whole; `rows` replace those of `indices`; `a` (r x in) and `b` (out x r)
    make LoRA's delta, times `scaling`; `magnitude` (out) is DoRA's.
    """

    frozen: str = ""
    saved: str = ""
    rows: str = ""
    indices: tuple[int, ...] = ()
    a: str = ""
    b: str = ""
    magnitude: str = ""
    embedding: bool = False
    transposed: bool = False
    scaling: float = 1.0


@dataclass(frozen=True)
class Adapter:
    """An adapter's configuration, the shapes in its file, and its changes by tensor name."""

    config: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    changes: dict[str, Change]


def read(folder: Path) -> Adapter:
    """The configuration and header of an adapter whose files are whole. Raises Unmergeable."""
    config = read_json(folder / CONFIG)
    if odd := _refusals(config):
        raise Unmergeable(f"{folder / CONFIG}: {'; '.join(odd)}; this merge cannot do it")
    shapes = {k: tuple(entry["shape"]) for k, entry in header(folder / WEIGHTS).items()}
    changes = _changes(shapes, config)
    for name, change in changes.items():
        _complete(name, change, shapes, config)
    return Adapter(config, shapes, changes)


def _refusals(config: Mapping[str, Any]) -> list[str]:
    kind, beginning = config.get("peft_type"), config.get("init_lora_weights")
    if kind != "LORA":
        return [f"peft_type is {kind}, and not LORA"]
    odd = [f"{k} is set" for k, v in sorted(config.items()) if v and k not in _UNDERSTOOD]
    if beginning not in _BEGINNINGS:
        odd.append(f"init_lora_weights is {beginning}, which changed the base's weights")
    return odd


def _changes(keys: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Change]:
    found: dict[str, Change] = {}
    for key in sorted(keys):
        if key.endswith(".trainable_tokens_original"):
            continue
        if not key.startswith(_PREFIX):
            raise Unmergeable(f"the adapter's {key} does not begin with {_PREFIX}")
        name, part = _place(key.removeprefix(_PREFIX), config)
        change = found.setdefault(name, Change())
        setattr(change, part, key)
        change.embedding |= ".lora_embedding_" in key
    return found


def _place(key: str, config: Mapping[str, Any]) -> tuple[str, str]:
    """The tensor that a key is about, and which part of a Change it is."""
    for pattern, part in _MODULE_PARTS.items():
        if match := pattern.fullmatch(key):
            return f"{match[1]}.weight", part
    if match := _SAVED.fullmatch(key):
        return f"{match[1]}.{match[2]}", "saved"
    if match := _WRAPPED.fullmatch(key):
        return f"{match[1]}.{match[3]}", "frozen"
    module = key.rpartition(".")[0]
    whole = any(module.endswith(name) for name in config.get("modules_to_save") or ())
    return key, "saved" if whole else "frozen"


def _complete(
    name: str, change: Change, shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> None:
    """Fills in what the configuration says of a change. Raises Unmergeable."""
    module = name.removesuffix(".weight")
    if change.rows:
        change.indices = _indices(module, config)
    if not (change.a or change.b or change.magnitude):
        return
    if not (change.a and change.b) or bool(change.magnitude) != bool(config.get("use_dora")):
        raise Unmergeable(f"the adapter's tensors for {module} are not all there")
    if change.rows or change.saved:
        raise Unmergeable(f"the adapter has LoRA and other weights for {module}")
    rank = _of_pattern(config.get("rank_pattern"), module, config["r"])
    if shapes[change.a][0] != rank:
        text = f"{module} has rank {shapes[change.a][0]}, and {CONFIG} says {rank}"
        raise Unmergeable(text)
    alpha = _of_pattern(config.get("alpha_pattern"), module, config["lora_alpha"])
    change.scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _indices(module: str, config: Mapping[str, Any]) -> tuple[int, ...]:
    """The rows of trainable_token_indices: one list, or one for each layer."""
    listed = config.get("trainable_token_indices") or ()
    if isinstance(listed, Mapping):
        listed = next((rows for name, rows in listed.items() if module.endswith(name)), ())
    return tuple(listed)


def _of_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """The first value whose key, a regular expression, fits the end of the module's name."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def changed(
    tensor: Any, change: Change, tensor_of: Callable[[str], Any], *, spare: bool = False
) -> Any:
    """A base's tensor with its change, in the tensor's dtype.

    `tensor_of` gives the adapter's tensors by key. A `spare` tensor is written over, which
    saves its size in memory; any other stays as it is.
    """
    import torch

    if whole := change.saved or change.frozen:
        tensor = tensor_of(whole).to(tensor.dtype)
    if change.rows:
        rows = tensor_of(change.rows).to(tensor.dtype)
        tensor = tensor.index_copy(0, torch.tensor(change.indices), rows)
    if not change.a:
        return tensor
    a, b = _full(tensor_of(change.a)), _full(tensor_of(change.b))
    made = tensor if spare else torch.empty_like(tensor)
    if change.magnitude:
        return made.copy_(_rescaled(tensor, a, b, _full(tensor_of(change.magnitude)), change))
    return _sum(tensor, _delta(a, b, change), made, rounded=change.embedding)


def _delta(a: Any, b: Any, change: Change) -> Any:
    delta = b @ a
    if change.embedding or change.transposed:
        delta = delta.T
    return delta.mul_(change.scaling)


def _sum(tensor: Any, delta: Any, made: Any, *, rounded: bool) -> Any:
    """`tensor` + `delta`, which is lost, in `made`, which may be `tensor`; PEFT has the delta
    of an embedding `rounded` first.

    By parts that stay in the processor's cache, each in one dtype: torch adds tensors of
    two dtypes an element at a time.
    """
    import torch

    rows = max(1, _PART // tensor.shape[1])
    parts = zip(made.split(rows), tensor.split(rows), delta.split(rows), strict=True)
    for into, part, change in parts:
        if rounded:
            torch.add(part, change.to(part.dtype), out=into)
        else:
            into.copy_(change.add_(part.to(change.dtype)))
    return made


_PART = 2**18  # elements
_BLOCK = 2**14  # columns of a product: of far fewer the BLAS makes other bits


def _full(tensor: Any) -> Any:
    import torch

    half = tensor.dtype in (torch.float16, torch.bfloat16)
    return tensor.float() if half else tensor


def _rescaled(tensor: Any, a: Any, b: Any, magnitude: Any, change: Change) -> Any:
    """DoRA: the sum in float32, each output feature scaled from its norm to `magnitude`.

    The order of the sum within a norm depends on how the tensor lies in memory, so the sum
    lies as PEFT's does: as the base's tensor.
    """
    import torch

    across = change.embedding or change.transposed
    total = (_sum_across if across else _sum_along)(tensor, a, b, change)
    norm = torch.linalg.norm(total.T if across else total, dim=1)
    factor = magnitude / norm
    return total.mul_(factor.view(1, -1) if across else factor.view(-1, 1))


def _sum_along(tensor: Any, a: Any, b: Any, change: Change) -> Any:
    """By parts too: torch widens the whole of a tensor that it adds to one of another dtype."""
    total = _delta(a, b, change)
    for rows, part in zip(total.split(_BLOCK), tensor.split(_BLOCK), strict=True):
        rows.add_(part.to(total.dtype))
    return total


def _sum_across(tensor: Any, a: Any, b: Any, change: Change) -> Any:
    """By blocks, since the delta lies the other way round and takes as much memory."""
    total = tensor.to(b.dtype, copy=True)
    count = 1 + len(total) // _BLOCK
    parts = total.tensor_split(count), a.tensor_split(count, dim=1)
    for rows, columns in zip(*parts, strict=True):
        rows.add_(_delta(columns, b, change))
    return total

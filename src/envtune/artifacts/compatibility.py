"""Whether an adapter fits its base, told before vLLM starts and fails after minutes. Pure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from envtune.artifacts import serving_rules as rules
from envtune.artifacts.adapters import (
    INPUT,
    OUTPUT,
    Adapter,
    Base,
    Embedding,
    Layers,
    Tensors,
    embeddings,
    lora_pairs,
    rank,
    split,
)

# Weights of other types are packed, and their shape is not the layer's.
_FLOATS = {"F32", "F16", "BF16"}
_UNPACKED = {*_FLOATS, "F64", "F8_E4M3", "F8_E5M2"}
# transformers keeps experts in one tensor where the file has one for each.
_REGROUPED = ("experts", "block_sparse_moe", "mlp.gate")


def problems(adapter: Adapter, base: Base) -> list[str]:
    """What is wrong with an adapter whose files are whole, one line each. Empty: nothing."""
    if told := [*_not_lora(adapter)]:
        return told
    trained = embeddings(adapter, base)
    return [
        *_halves(adapter),
        *_other_ranks(adapter),
        *_strangers(adapter, base),
        *_other_sizes(adapter, base, trained),
        *_two_vocabularies(adapter, base, trained),
        *_lost_tokens(adapter, base, trained),
        *_lost_rows(adapter, base, trained),
    ]


def of_another(adapter: Adapter, base: Base) -> list[str]:
    """How an adapter's layers are not those of a model, one line each."""
    return [*_strangers(adapter, base), *_other_sizes(adapter, base, embeddings(adapter, base))]


def other_shapes(tensors: Tensors, base: Tensors) -> list[str]:
    """How a model's weights are not those of another; either may have grown by tokens."""
    if not tensors or not base:
        return []
    shared = sorted(tensors.keys() & base.keys())
    shapes = [(name, list(tensors[name]["shape"]), list(base[name]["shape"])) for name in shared]
    other = [_misfit(name, one, two) for name, one, two in shapes if one[1:] != two[1:]]
    return other if shared else ["they have no tensor in common"]


def _not_lora(adapter: Adapter) -> Iterator[str]:
    config = adapter.config
    if (peft_type := config.get("peft_type")) != "LORA":
        yield f"peft_type is {peft_type!r}; only LORA can be served or merged"
    elif not isinstance(config.get("r"), int) or config["r"] < 1:
        yield f"r is {config.get('r')!r}; a whole number above 0 is needed"
    elif not _is_number(config.get("lora_alpha")):
        yield f"lora_alpha is {config.get('lora_alpha')!r}; a number is needed"
    for key in ("rank_pattern", "alpha_pattern"):
        if (given := config.get(key)) and not (
            isinstance(given, Mapping) and all(map(_is_number, given.values()))
        ):
            yield f"{key} is {given!r}; a number for each layer is needed"
    for key, what in rules.HOPELESS.items():
        if config.get(key):
            yield f"the adapter {what} ({key}), which can be neither served nor merged"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _halves(adapter: Adapter) -> Iterator[str]:
    halves = [module for module, parts in lora_pairs(adapter) if len(parts) != 2]
    if halves:
        yield f"{_some(halves)} one of the two LoRA matrices only"


def _other_ranks(adapter: Adapter) -> Iterator[str]:
    for module, parts in lora_pairs(adapter):
        shape = parts.get("lora_A.weight") or parts.get("lora_embedding_A")
        if shape and not _regrouped(module) and shape[0] != (said := rank(adapter.config, module)):
            yield f"{module} has rank {shape[0]} in the file and {said} in adapter_config.json"
            return


def _strangers(adapter: Adapter, base: Base) -> Iterator[str]:
    layers = Layers(base.tensors)
    modules = {split(key)[0] for key in adapter.tensors} if base.tensors else set()
    absent = (OUTPUT,) if base.tied else ()
    strangers = [
        module
        for module in sorted(modules)
        if not layers.known(module) and not _regrouped(module) and not module.endswith(absent)
    ]
    if strangers:
        yield f"{_some(strangers)} no tensor in the base: the adapter is of another model"


def _regrouped(module: str) -> bool:
    return any(word in module for word in _REGROUPED)


def _other_sizes(adapter: Adapter, base: Base, trained: Sequence[Embedding]) -> Iterator[str]:
    layers = Layers(base.tensors)
    rows = {e.module: list(adapter.tensors[e.rows]["shape"]) for e in trained if e.rows}
    for e in trained:
        own = _shapes(base, layers, e.module)
        brought = list(adapter.tensors[e.rows or e.tokens]["shape"])
        if own and brought[1:] not in [shape[1:] for shape in own]:
            yield _misfit(e.module, brought[1:], own[0][1:])
            return
    for module, parts in lora_pairs(adapter):
        if len(parts) != 2 or _regrouped(module):
            continue
        own = [rows[module]] if module in rows else _shapes(base, layers, module)
        made = _made(parts)
        if own and made not in own and not (_turned(adapter) and made[::-1] in own):
            yield _misfit(module, made, own[0])
            return


def _shapes(base: Base, layers: Layers, module: str) -> list[list[int]]:
    """The shapes that a module's weight may have: empty where nothing can be said."""
    names = layers.weights(module)
    if not names and base.tied:
        names = layers.weights(INPUT)
    found = [base.tensors[name] for name in names]
    plain = [e for e in found if e["dtype"] in _UNPACKED and len(e["shape"]) == 2]
    # bitsandbytes may keep its bytes as any type.
    packed = len(plain) < len(found) or any(f"{name}.absmax" in base.tensors for name in names)
    return [] if packed else [list(e["shape"]) for e in plain]


def _made(parts: dict[str, list[int]]) -> list[int]:
    """The shape of the change that two matrices make."""
    if "lora_embedding_A" in parts:
        return [parts["lora_embedding_A"][1], parts["lora_embedding_B"][0]]
    return [parts["lora_B.weight"][0], parts["lora_A.weight"][1]]


def _turned(adapter: Adapter) -> bool:
    return bool(adapter.config.get("fan_in_fan_out"))


def _misfit(module: str, found: Sequence[int], wanted: Sequence[int]) -> str:
    sizes = ["x".join(map(str, shape)) for shape in (found, wanted)]
    return f"{module} is for {sizes[0]} and the base has {sizes[1]}: it is of another model"


def _two_vocabularies(adapter: Adapter, base: Base, trained: Sequence[Embedding]) -> Iterator[str]:
    """Both layers have a row for each token, those too that the adapter does not bring."""
    brought = _brought(adapter, trained)
    layers = Layers(base.tensors)
    names = (INPUT,) if base.tied else (INPUT, OUTPUT)
    own = {name: shapes[0][0] for name in names if (shapes := _shapes(base, layers, name))}
    counts = {**own, **brought} if brought else {}
    if len(set(counts.values())) > 1:
        told = " and ".join(f"{name} {count}" for name, count in counts.items())
        yield f"its layers have different numbers of rows for one vocabulary: {told}"


def _brought(adapter: Adapter, trained: Sequence[Embedding]) -> dict[str, int]:
    """How many rows the adapter has for the embedding and for the output layer."""
    named = {e.module.rpartition(".")[2]: e.rows for e in trained if e.rows}
    return {n: int(adapter.tensors[named[n]]["shape"][0]) for n in (INPUT, OUTPUT) if n in named}


def _lost_tokens(adapter: Adapter, base: Base, trained: Sequence[Embedding]) -> Iterator[str]:
    layers = Layers(base.tensors)
    if trained and not base.tensors:
        yield "the adapter brings rows of the embedding, and the base has no safetensors for them"
        return
    for e in trained:
        if told := _unwritable(base, e):
            yield told
            return
        own = _shapes(base, layers, e.module)
        size = adapter.tensors[e.rows]["shape"][0] if e.rows else max(s[0] for s in own or [[0]])
        if own and size > own[0][0] and adapter.tokenizer is None:
            yield f"the adapter has {size - own[0][0]} tokens more than the base and no tokenizer"
            return
        if e.tokens and len(e.indices) != (count := adapter.tensors[e.tokens]["shape"][0]):
            yield f"{e.module} has {count} trained tokens and {len(e.indices)} indices for them"
        elif size and max(e.indices, default=0) >= size:
            yield f"{e.module} has {size} rows and a trained token of number {max(e.indices)}"


def _lost_rows(adapter: Adapter, base: Base, trained: Sequence[Embedding]) -> Iterator[str]:
    """PEFT leaves out the rows of added tokens where it cannot ask for the base's size.

    Some bases have a token without a row themselves.
    """
    own = max((shape[0] for shape in _shapes(base, Layers(base.tensors), INPUT)), default=0)
    known = max(own, base.tokenizer.size if base.tokenizer else 0)
    size = adapter.tokenizer.size if adapter.tokenizer else 0
    brought = max(_brought(adapter, trained).values(), default=0)
    if not own or size - (brought or own) <= known - own:
        return
    if brought:
        yield f"it holds {brought} rows for the {size} tokens of its tokenizer"
    else:
        yield (
            f"its tokenizer has {size - known} tokens more than the base, and it holds no rows "
            "for them: PEFT did not save the embedding"
        )


def _unwritable(base: Base, e: Embedding) -> str:
    """Why the base's own rows cannot be replaced, or nothing."""
    if e.tensor and (dtype := base.tensors[e.tensor]["dtype"]) not in _FLOATS:
        return f"{e.tensor} of the base is {dtype} and takes no rows of the adapter"
    if not e.tensor and not (base.tied and e.module.endswith(OUTPUT)):
        return f"{e.module} of the adapter is no one tensor of the base"
    return ""


def _some(modules: Sequence[str]) -> str:
    if len(modules) == 1:
        return f"{modules[0]} has"
    return f"{modules[0]} and {len(modules) - 1} more have"

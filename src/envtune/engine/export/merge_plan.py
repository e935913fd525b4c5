"""What every file of a merged model will hold, told from headers alone."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from envtune.artifacts.adapterfiles import INDEX, SINGLE
from envtune.artifacts.modelfiles import read_json
from envtune.engine.export.base import Base, is_output
from envtune.engine.export.lora import Adapter, Change, Unmergeable
from envtune.engine.export.shards import Entry

# Their layers are Conv1D, whose weights lie the other way round: in x out.
_CONV1D = ("gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp")
_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Piece:
    """A tensor of the merged model: how it will lie, the base's that it is made of, its change."""

    entry: Entry
    source: str
    change: Change | None


@dataclass(frozen=True)
class Plan:
    """A merged model: by file its tensors in order; `index` only where there are shards."""

    base: Base
    files: dict[str, list[Piece]]
    config: dict[str, Any]
    index: dict[str, Any] | None

    @property
    def changed(self) -> list[Piece]:
        return [piece for pieces in self.files.values() for piece in pieces if piece.change]


def plan(base: Base, adapter: Adapter) -> Plan:
    """Fits an adapter to a base. Raises Unmergeable."""
    if base.packed and base.config.get("model_type") in _CONV1D:
        text = "is in 4 bits, for which its weights were turned; merge into the original"
        raise Unmergeable(f"the base {base.folder} {text}")
    changes, output = _fitted(base, adapter)
    files: dict[str, list[Piece]] = {}
    for name, entries in base.files.items():
        files[name] = []
        for entry in entries:
            if base.is_tied() and entry.name == base.output():
                continue  # the input embedding's again
            files[name].append(_piece(base, adapter, entry, changes.get(entry.name)))
            if output and entry.name == base.input():
                apart = replace(entry, name=base.output() or "lm_head.weight")
                files[name].append(_piece(base, adapter, apart, output, entry.name))
    files = {name: pieces for name, pieces in files.items() if pieces}
    made = Plan(base, files, _config(base, files, untied=output is not None), _index(base, files))
    if not made.changed:
        raise Unmergeable("the adapter changes no tensor of the base")
    return made


def _fitted(base: Base, adapter: Adapter) -> tuple[dict[str, Change], Change | None]:
    """The changes by the base's names; and the output embedding's where it was tied to the
    input's and was trained apart from it."""
    tied, changes, own, foreign = base.is_tied(), {}, Change(), []
    for name, change in adapter.changes.items():
        stored = base.stored(name)
        if tied and is_output(stored or name):
            own = change
        elif stored:
            changes[stored] = change
        else:
            foreign.append(name)
    if foreign:
        text = f"{len(foreign)} of the adapter's tensors, such as {foreign[0]}, are not in the base"
        raise Unmergeable(f"{text} {base.folder}; was it trained on another model?")
    if not tied or adapter.config.get("ensure_weight_tying"):
        return changes, None
    return changes, _apart(changes.get(base.input(), Change()), own)


def _apart(first: Change, own: Change) -> Change | None:
    """What was trained for a tied output embedding alone, or None where both stay one.

    PEFT keeps rows of trainable tokens tied. A LoRA or a whole copy is of one side only,
    though the tensor below is shared.
    """
    if not (first.saved or first.a or own.saved or own.a or own.rows):
        return None
    rows = own if own.rows else first
    return replace(own, frozen=own.frozen or first.frozen, rows=rows.rows, indices=rows.indices)


def _piece(
    base: Base, adapter: Adapter, entry: Entry, change: Change | None, source: str = ""
) -> Piece:
    """Raises Unmergeable where the shapes do not fit."""
    source = source or entry.name
    if change is None:
        return Piece(entry, source, None)
    if entry.dtype not in _FLOATS:
        raise Unmergeable(f"the base's {entry.name} is {entry.dtype}, which cannot be added to")
    whole = adapter.shapes.get(change.saved or change.frozen, entry.shape)
    if whole != entry.shape and (
        whole[1:] != entry.shape[1:] or (source != base.input() and not is_output(entry.name))
    ):
        _misfit(entry, whole)
    entry = entry.reshaped(whole)
    if change.rows:
        _check_rows(entry, change, adapter.shapes[change.rows])
    if change.a:
        change.transposed = _is_transposed(base, entry, change, adapter)
    return Piece(entry, source, change)


def _check_rows(entry: Entry, change: Change, shape: tuple[int, ...]) -> None:
    if shape != (len(change.indices), *entry.shape[1:]):
        _misfit(entry, shape)
    if max(change.indices) >= entry.shape[0]:
        text = (
            f"{entry.name} has {entry.shape[0]} rows, and token {max(change.indices)} was trained"
        )
        raise Unmergeable(text)


def _is_transposed(base: Base, entry: Entry, change: Change, adapter: Adapter) -> bool:
    out, in_ = adapter.shapes[change.b][0], adapter.shapes[change.a][-1]
    if change.embedding:
        out, in_ = in_, out
    across = not change.embedding and base.config.get("model_type") in _CONV1D
    if entry.shape == (out, in_) and not (across and out == in_):
        return False
    if entry.shape == (in_, out) and across:
        return True
    return _misfit(entry, (out, in_))


def _misfit(entry: Entry, shape: tuple[int, ...]) -> NoReturn:
    text = (
        f"the base's {entry.name} is {_by(entry.shape)} and the adapter's part of it {_by(shape)}"
    )
    raise Unmergeable(text)


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _config(base: Base, files: dict[str, list[Piece]], *, untied: bool) -> dict[str, Any]:
    """The base's configuration with the sizes, ties and precision that the weights now have."""
    config = copy.deepcopy(dict(base.config))
    config.pop("quantization_config", None)
    rows = {p.source: p.entry.shape[0] for pieces in files.values() for p in pieces}
    for part in (config, config.get("text_config", config)):
        if untied and (part is config or "tie_word_embeddings" in part):
            part["tie_word_embeddings"] = False
    name = base.input()
    if name and rows[name] != base.tensors[name].shape[0]:
        inner = config if "vocab_size" in config else config.get("text_config", config)
        inner["vocab_size"] = rows[name]
    return config


def _index(base: Base, files: dict[str, list[Piece]]) -> dict[str, Any] | None:
    if SINGLE in files:
        return None
    entries = [(piece.entry, name) for name, pieces in files.items() for piece in pieces]
    metadata = dict(read_json(base.folder / INDEX).get("metadata", {}))
    metadata["total_size"] = sum(entry.size for entry, _ in entries)
    if "total_parameters" in metadata:
        metadata["total_parameters"] = sum(math.prod(entry.shape) for entry, _ in entries)
    return {"metadata": metadata, "weight_map": {entry.name: name for entry, name in entries}}

"""Makes of an adapter what vLLM can serve: python -m envtune.engine.export.export ORDER.json

The order names the `adapter`, the `base` as vLLM is to be told it, the `base_folder` that
holds its files and the folder `serving` to make; `stops` are the ids that end an answer, and
`new_embeddings: true` asks for what servers of the past read as well. Everything that can be
refused is, before a byte is written. The work is done beside the target, and one rename makes
it. Its `serving.json` says what to serve, by names below its folder: `model`, or `base` where
that is null.
"""

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import adapterfiles, checkpoints, layouts, modelfiles, servability
from envtune.artifacts.adapters import LORA, OUTPUT, Adapter, Base, Embedding, split
from envtune.artifacts.servability import Decision
from envtune.engine.export import embeddings, resized, shards
from envtune.engine.export.embeddings import Rows, entry, load
from envtune.errors import Exit, Problem, Refused

RECORD = "serving.json"
ADAPTER, BASE, OLD, TEMPLATE = "adapter", "base", "new_embeddings", "chat_template.jinja"


@dataclass(frozen=True)
class Order:
    """What is to be made of what. `base` is a name or a path."""

    adapter: Path
    base: str
    base_folder: Path
    serving: Path
    new_embeddings: bool = False
    stops: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path) -> "Order":
        """Raises OSError, ValueError or LookupError where it is none."""
        told = modelfiles.read_json(path)
        folders = {name: Path(told[name]) for name in ("adapter", "base_folder", "serving")}
        stops = tuple(told.get("stops") or ())
        return cls(base=told["base"], new_embeddings=bool(told.get(OLD)), stops=stops, **folders)


@dataclass(frozen=True)
class Work:
    """An order with what was read and decided, and the folder where it is done."""

    order: Order
    adapter: Adapter
    base: Base
    decision: Decision
    rows: Rows
    aside: Path


def export(order: Order) -> Decision:
    """Makes the folder `serving`. Raises Refused with everything that is wrong."""
    adapter, base = adapterfiles.pair(order.adapter, order.base_folder)
    decision = servability.decide(adapter, base)
    aside = order.serving.with_name(f".{order.serving.name}.partial")
    work = Work(order, adapter, base, decision, Rows(order.adapter, order.base_folder), aside)
    _check_untied(work)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    if decision.kind in _MAKE:
        _MAKE[decision.kind](work)
    _write_template(work)
    if order.stops:
        told = layouts.generation_config(order.stops, order.base_folder)
        files.write_json(aside / layouts.GENERATION, told)
    files.write_json(aside / RECORD, _record(work))
    _sync(aside)
    checkpoints.move(aside, order.serving)
    return decision


def _check_untied(work: Work) -> None:
    """A base that ties two layers has no room for an adapter that trained them apart."""
    if work.decision.kind != "resized":
        return
    import torch  # two seconds, which a plain adapter does not need

    held = [e for e in work.decision.embeddings if e.tensor]
    tied = [e for e in work.decision.embeddings if not e.tensor]
    if not held or any(not torch.equal(work.rows.after(held[0]), work.rows.after(e)) for e in tied):
        text = f"{tied[0].module} was trained apart, and the base has one tensor for it and another"
        raise Refused([Problem("adapter", text, Exit.ARTIFACT)])


def _plain(work: Work) -> None:
    names = checkpoints.artifact_files(work.order.adapter, adapter=True)
    checkpoints.link(work.order.adapter, work.aside / ADAPTER, names)


def _converted(work: Work) -> None:
    made = embeddings.matrices(work.rows, work.decision.embeddings, tied=work.base.tied)
    _write_adapter(work, ADAPTER, embeddings.with_matrices(work.adapter, made), made)


def _resized(work: Work) -> None:
    order, held = work.order, [e for e in work.decision.embeddings if e.tensor]
    size = max(_size(work, e) for e in held)
    tokenizer = order.adapter if work.adapter.tokenizer else order.base_folder
    changed = {e.tensor: partial(work.rows.after, e) for e in held}
    resized.write(order.base_folder, work.aside / BASE, changed, size, tokenizer)
    config = {**work.adapter.config, "trainable_token_indices": None}
    on_base = {**config, "base_model_name_or_path": str(order.serving / BASE)}
    _write_adapter(work, ADAPTER, on_base, {})
    before = min(work.base.tensors[e.tensor]["shape"][0] for e in held)
    if order.new_embeddings and size > before:
        _write_adapter(work, OLD, config, {})
        _write_added(work, before)


_MAKE = {"plain": _plain, "embedding-lora": _converted, "resized": _resized}


def _size(work: Work, e: Embedding) -> int:
    """How many rows a layer has after the training."""
    entry = work.adapter.tensors[e.rows] if e.rows else work.base.tensors[e.tensor]
    return int(entry["shape"][0])


def _write_added(work: Work, before: int) -> None:
    """The rows after the base's, by the names that vLLM had for them while it read them."""
    added = {
        f"{'output' if e.module.endswith(OUTPUT) else 'input'}_embeddings": (
            work.rows.after(e)[before:].contiguous()
        )
        for e in work.decision.embeddings
    }
    entries = [entry(name, tensor) for name, tensor in added.items()]
    path = work.aside / OLD / f"{OLD}.safetensors"
    shards.write(path, entries, {"format": "pt"}, added.__getitem__)


def _write_adapter(
    work: Work, name: str, config: Mapping[str, Any], more: Mapping[str, Any]
) -> None:
    """The adapter's matrices and `more`, its tokenizer, and another configuration."""
    source, target = work.order.adapter, work.aside / name
    target.mkdir()
    resized.copy_tokenizer(source, target)
    files.write_json(target / adapterfiles.CONFIG, config)
    entries, metadata = shards.read_entries(source / adapterfiles.WEIGHTS)
    kept = [e for e in entries if split(e.name)[1] in LORA]
    made = [entry(name, tensor) for name, tensor in more.items()]

    def tensor(name: str) -> Any:
        return more[name] if name in more else load(source / adapterfiles.WEIGHTS, name)

    shards.write(target / adapterfiles.WEIGHTS, [*kept, *made], metadata, tensor)


def _record(work: Work) -> dict[str, Any]:
    """What a server is to be given."""
    made, order = work.decision, work.order

    def there(name: str) -> str | None:
        return name if (work.aside / name).exists() else None

    return {
        "kind": made.kind,
        "reason": made.reason,
        "warning": _doubt(order, work.adapter),
        "base": order.base,
        "model": there(BASE),
        "adapter": there(ADAPTER),
        "rank": made.rank,
        "max_lora_rank": made.max_lora_rank,
        "tokenizer": _tokenizer(work),
        "tokenizer_changes": made.tokenizer_changes,
        "chat_template": there(TEMPLATE),
        "generation_config": there(layouts.GENERATION),
        OLD: there(OLD),
    }


def _doubt(order: Order, adapter: Adapter) -> str | None:
    """Two models of one architecture have the same shapes; only their names tell them apart."""
    named = str(adapter.config.get("base_model_name_or_path") or "")
    if not named or Path(named).name.lower() == Path(order.base).name.lower():
        return None
    return (
        f"the adapter was trained on {named}, and {order.base} has the same shapes; "
        "whether it has the same weights cannot be told"
    )


def _tokenizer(work: Work) -> str | None:
    """The folder of the tokenizer that was trained with, where a server needs to be told."""
    if work.decision.kind == "resized":
        return BASE
    return ADAPTER if work.decision.kind != "merged" and work.adapter.tokenizer else None


def _write_template(work: Work) -> None:
    """A server of the base itself has the base's template unless it is given this one."""
    changed = "chat template" in work.decision.tokenizer_changes
    if changed and work.adapter.tokenizer and work.decision.kind in ("plain", "embedding-lora"):
        (work.aside / TEMPLATE).write_text(work.adapter.tokenizer.template)


def _sync(folder: Path) -> None:
    """Makes everything in a folder last, before the rename that makes it count."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            checkpoints.sync_folder(path)
            continue
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    checkpoints.sync_folder(folder)


def main() -> int:
    try:
        decision = export(Order.read(Path(sys.argv[1])))
    except Refused as refused:
        print(refused.line, file=sys.stderr)
        return refused.exit
    print(f"export: {decision.kind}. {decision.reason}")
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())

"""Merges a LoRA adapter into its base model: python -m envtune.engine.export.merge ORDER.json

The order names three folders: `base`, `adapter`, and `target`, which is to hold the model.
Everything that can be refused is, before a byte is written. The work is done beside the
target, file by file and tensor by tensor; a start that follows a killed one keeps the
files that are whole and ends with the same bytes. One rename at the end makes the target.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from envtune.artifacts import adapterfiles, checkpoints
from envtune.artifacts.modelfiles import read_json
from envtune.engine.export import base as bases
from envtune.engine.export import fourbit, lora, shards
from envtune.engine.export.base import Base
from envtune.engine.export.merge_plan import Plan, plan
from envtune.errors import Refused
from envtune.files import write_json

# What the model was made of. It stays in the target, which tells a later start that it is done.
MANIFEST = "merge.json"


def merge(base_folder: Path, adapter_folder: Path, target: Path) -> None:
    """Merges, or finds that it was done before. Raises Refused, OSError."""
    adapterfiles.pair(adapter_folder, base_folder)
    base, adapter = bases.read(base_folder), lora.read(adapter_folder)
    made = plan(base, adapter)
    inputs = _inputs(base, adapter_folder)
    if _made_of(target) == inputs and all(_kept(target, made, name) for name in made.files):
        checkpoints.drop_replaced(target)
        print(f"merge: {target} was made before", flush=True)
        return
    print(f"merge: {len(made.changed)} tensors of {base_folder} change", flush=True)
    aside = _begun(target.with_name(f".{target.name}.merging"), inputs)
    for number, name in enumerate(made.files, 1):
        _write(aside, made, name, adapter_folder)
        print(f"merge: {number} of {len(made.files)} files, {name}", flush=True)
    _write_beside(aside, made, adapter_folder)
    checkpoints.move(aside, target)
    print(f"merge: {target} is whole", flush=True)


def _begun(aside: Path, inputs: Mapping[str, Any]) -> Path:
    """The folder for the work: with the files that a killed start made whole, or empty."""
    if _made_of(aside) == inputs:
        for half in aside.glob(".*"):
            half.unlink()
        return aside
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    write_json(aside / MANIFEST, inputs)
    return aside


def _inputs(base: Base, adapter: Path) -> dict[str, Any]:
    """What tells one merge from another. A base's weights are too large to be read twice."""
    import torch

    files = [base.folder / name for name in (*base.files, "config.json")]
    return {
        "base": {p.name: [p.stat().st_size, p.stat().st_mtime_ns] for p in files},
        "adapter": {n: _digest(adapter / n) for n in (adapterfiles.CONFIG, adapterfiles.WEIGHTS)},
        "torch": str(torch.__version__),
        "bitsandbytes": version("bitsandbytes") if base.packed else None,
    }


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _made_of(folder: Path) -> Any:
    try:
        return read_json(folder / MANIFEST)
    except (OSError, ValueError):
        return None  # a folder that something else made, or none


def _kept(folder: Path, made: Plan, name: str) -> bool:
    entries = [piece.entry for piece in made.files[name]]
    return shards.is_whole(folder / name, entries, made.base.metadata[name])


def _write(aside: Path, made: Plan, name: str, adapter: Path) -> None:
    """Writes one file of weights, unless a killed start did."""
    from safetensors import safe_open

    if _kept(aside, made, name):
        return
    pieces = {piece.entry.name: piece for piece in made.files[name]}
    with (
        safe_open(made.base.folder / name, "pt") as source,
        safe_open(adapter / adapterfiles.WEIGHTS, "pt") as changes,
    ):

        def tensor_of(wanted: str) -> Any:
            piece = pieces[wanted]
            tensor = source.get_tensor(piece.source)
            parts = made.base.packed.get(piece.source)
            if parts:
                tensor = fourbit.dequantised(tensor, parts)
            if piece.change is None:
                return tensor
            return lora.changed(tensor, piece.change, changes.get_tensor, spare=bool(parts))

        entries = [piece.entry for piece in pieces.values()]
        shards.write(aside / name, entries, made.base.metadata[name], tensor_of)


def _write_beside(aside: Path, made: Plan, adapter: Path) -> None:
    """The index, the configuration, the tokenizer, and what else a model is loaded with."""
    if made.index is not None:
        write_json(aside / adapterfiles.INDEX, made.index)
    write_json(aside / "config.json", made.config)
    for source in beside(made.base.folder, adapter):
        shutil.copyfile(source, aside / source.name)
        with (aside / source.name).open("rb") as stream:
            os.fsync(stream.fileno())
    checkpoints.sync_folder(aside)


def beside(base: Path, adapter: Path) -> list[Path]:
    """The files to copy: of the adapter's folder, and of the base's what that has not.

    A tokenizer is one thing in several files, which are never mixed.
    """
    trained, given = _extras(adapter), _extras(base)
    if any(map(_is_tokenizer, trained)):
        given = {name: path for name, path in given.items() if not _is_tokenizer(name)}
    code = {path.name: path for path in base.glob("*.py")}
    return list({**code, **given, **trained}.values())


def _extras(folder: Path) -> dict[str, Path]:
    names = checkpoints.artifact_files(folder, adapter=True)
    return {name: folder / name for name in names if not name.startswith("adapter_")}


def _is_tokenizer(name: str) -> bool:
    return not name.startswith(("generation_config", "preprocessor_config", "processor_config"))


def main() -> None:
    # Before torch reads it: the disk takes most of the time, and waiting threads would spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ["HF_HUB_OFFLINE"] = "1"  # bitsandbytes would fetch a kernel at its import
    order = json.loads(Path(sys.argv[1]).read_text())
    try:
        merge(*(Path(order[name]) for name in ("base", "adapter", "target")))
    except Refused as refused:
        print(f"merge: refused: {refused.line}", file=sys.stderr, flush=True)
        sys.exit(refused.exit)


if __name__ == "__main__":
    main()

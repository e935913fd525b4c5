"""A base model with other rows in its embeddings: the one file that has them, written anew.

The others are hard links to the base's where the volume has them.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envtune.artifacts import adapterfiles, checkpoints, modelfiles, weights
from envtune.engine.export import embeddings, shards
from envtune.files import write_json

# Of what `artifact_files` finds beside weights, that which is no tokenizer's.
_MODELS_OWN = ("generation_config", "preprocessor_config", "processor_config")

Changed = Mapping[str, Callable[[], Any]]
"""The names of the tensors to replace, and what gives each [vocabulary, hidden]."""


def write(base: Path, target: Path, changed: Changed, size: int, tokenizer: Path) -> None:
    """Writes `base` with `changed` tensors of `size` rows and the tokenizer of another folder."""
    names = adapterfiles.shards(base)
    touched = [n for n in names if changed.keys() & weights.header(base / n).keys()]
    checkpoints.link(base, target, [n for n in names if n not in touched] + _beside(base))
    copy_tokenizer(tokenizer, target)
    for name in touched:
        _write_shard(base / name, target / name, changed, size)
    if names != [adapterfiles.SINGLE]:
        _write_index(base, target, names)
    write_json(target / "config.json", _resized(modelfiles.read_json(base / "config.json"), size))


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies the tokenizer from beside a model or an adapter."""
    adapter = (source / adapterfiles.CONFIG).exists()
    stems = ("adapter_",) if adapter else ("model", "config.json")
    for name in checkpoints.artifact_files(source, adapter=adapter):
        if not name.startswith((*stems, *_MODELS_OWN)):
            (target / name).unlink(missing_ok=True)  # it may be a link to the base's own
            shutil.copy2(source / name, target / name)


def _beside(base: Path) -> list[str]:
    """What a model needs besides weights, configuration and tokenizer: its code too."""
    files = sorted(path.name for path in base.iterdir() if path.is_file())
    return [n for n in files if n.startswith(_MODELS_OWN) or n.endswith(".py")]


def _write_shard(source: Path, target: Path, changed: Changed, size: int) -> None:
    entries, metadata = shards.read_entries(source)
    made = {e.name: e.reshaped((size, *e.shape[1:])) if e.name in changed else e for e in entries}

    def tensor(name: str) -> Any:
        if name not in changed:
            return embeddings.load(source, name)
        return embeddings.cast(changed[name](), made[name].dtype)

    shards.write(target, list(made.values()), metadata, tensor)


def _write_index(base: Path, target: Path, names: Sequence[str]) -> None:
    index = modelfiles.read_json(base / adapterfiles.INDEX)
    entries = [entry for name in names for entry in shards.read_entries(target / name)[0]]
    index["metadata"] = {"total_size": sum(entry.size for entry in entries)}
    write_json(target / adapterfiles.INDEX, index)


def _resized(config: dict[str, Any], size: int) -> dict[str, Any]:
    """A model's configuration, or that of the language model in it, for another vocabulary."""
    if "vocab_size" in config:
        config = {**config, "vocab_size": size}
    if isinstance(text := config.get("text_config"), dict):
        config = {**config, "text_config": _resized(text, size)}
    return config

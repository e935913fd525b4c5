"""Reads an adapter and its base from disk, and refuses those that do not belong together."""

import hashlib
import json
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import compatibility, modelfiles, weights
from envtune.artifacts.adapters import Adapter, Base, Tokenizer
from envtune.errors import Exit, Problem, Refused

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "vocab.txt")


def pair(adapter_folder: Path, base_folder: Path) -> tuple[Adapter, Base]:
    """An adapter and the base that it fits. Raises Refused with everything that is wrong."""
    _refuse("adapter", problems(adapter_folder), Exit.ARTIFACT)
    wanted = (modelfiles.CONFIG, modelfiles.WEIGHTS)
    _refuse("base", modelfiles.problems(base_folder, wanted), Exit.ACCESS)
    found = adapter(adapter_folder), base(base_folder)
    _refuse("adapter", compatibility.problems(*found), Exit.ARTIFACT)
    return found


def _refuse(name: str, texts: list[str], exit: Exit) -> None:
    if texts:
        raise Refused(Problem(name, text, exit) for text in texts)


def problems(folder: Path) -> list[str]:
    """What is wrong with an adapter's files, before it is compared with a base."""
    return modelfiles.problems(folder, (modelfiles.ADAPTER,)) or weights.problems(
        folder, adapter=True
    )


def adapter(folder: Path) -> Adapter:
    """An adapter whose files are whole."""
    config = modelfiles.read_json(folder / CONFIG)
    return Adapter(config, weights.header(folder / WEIGHTS), tokenizer(folder))


def base(folder: Path) -> Base:
    """A base model whose files are whole."""
    config = modelfiles.read_json(folder / "config.json")
    return Base(config, tensors(folder), tokenizer(folder))


def tensors(folder: Path) -> dict[str, Any]:
    """The entries of a model's headers; empty where it has no safetensors."""
    return {
        name: entry
        for shard in shards(folder)
        for name, entry in weights.header(folder / shard).items()
    }


def shards(folder: Path) -> list[str]:
    """The names of a model's safetensors that are loaded, in order; empty where it has none."""
    if (folder / SINGLE).exists():
        return [SINGLE]
    if not (folder / INDEX).exists():
        return []
    return sorted(set(modelfiles.read_json(folder / INDEX)["weight_map"].values()))


def tokenizer(folder: Path) -> Tokenizer | None:
    """A folder's tokenizer, or None where it has none."""
    path = next((folder / name for name in _VOCABULARIES if (folder / name).exists()), None)
    if path is None:
        return None
    settings = _settings(folder / "tokenizer_config.json")
    vocabulary, size = _vocabulary(path)
    ends = _token(settings.get("bos_token")), _token(settings.get("eos_token"))
    return Tokenizer(vocabulary, ends, _template(folder, settings), size)


def _settings(path: Path) -> dict[str, Any]:
    return modelfiles.read_json(path) if path.exists() else {}


def _token(value: Any) -> str:
    return str(value["content"] if isinstance(value, dict) else value or "")


def _vocabulary(path: Path) -> tuple[str, int]:
    """A digest of what text becomes which token, the same when it is saved again; its size."""
    content, size = files.read_bytes(path), 0
    if path.name == "tokenizer.json":
        parsed = modelfiles.parse(content)
        model = parsed.get("model") or {}
        words = model.get("vocab") or ()
        added = {token["content"]: token["id"] for token in parsed.get("added_tokens") or ()}
        content = json.dumps([words, model.get("merges"), added]).encode()
        ids = words.values() if isinstance(words, dict) else range(len(words))
        size = max([*ids, *added.values()], default=-1) + 1
    return hashlib.sha256(content).hexdigest(), size


def _template(folder: Path, settings: dict[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.exists():
        return files.read_text(path)
    given = settings.get("chat_template") or ""
    if isinstance(given, str):
        return given
    return next((t["template"] for t in given if t["name"] == "default"), "")

"""What the files of a model have to be: all there, and whole.

The same questions are asked of a local folder, of the Hub's cache and of the Hub's list
of names, so that what is missing is told before anything is loaded.
"""

import math
import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts.weights import UNREADABLE, header
from envtune.settings.paths import near_file

CONFIG, WEIGHTS, TOKENIZER, ADAPTER = "config", "weights", "tokenizer", "adapter"

_POINTER = b"version https://git-lfs"
_VOCABULARIES = ("tokenizer.json", ".model", ".tiktoken", "vocab.txt", "tekken.json")
INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
# transformers loads the first of these that is there; an index that comes later may be stale.
ENTRIES = ("model.safetensors", INDICES[0], "pytorch_model.bin", INDICES[1])
_CHATS = ("chat_template.jinja", "chat_template.json", "additional_chat_templates")
# What is read to see whether it is whole, besides weights. A folder may hold any other JSON.
_READ = (
    "config.json", "generation_config.json", "adapter_config.json", "adapter_model.safetensors",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", *INDICES,
)  # fmt: skip


def missing(names: Collection[str], parts: Iterable[str]) -> list[str]:
    """The files that `parts` need and a folder with these names has not."""
    return [lost for part in parts for lost in _MISSING[part](names)]


def problems(folder: Path, parts: Collection[str]) -> list[str]:
    """Everything that keeps a folder from being loaded: what is missing, what is damaged."""
    if not os.path.isdir(folder):  # False for a name that is too long, too
        return [f"{folder} is not there{near_file(str(folder))}"]
    files = sorted(path for path in folder.iterdir() if path.is_file())
    lost = missing({path.name for path in files}, parts)
    lost += _lost_shards(folder) if WEIGHTS in parts else []
    told = [f"{folder} has no {', no '.join(lost)}"] if lost else []
    suspects = [path for path in files if is_weights(path.name) or path.name in _READ]
    return told + [text for path in suspects if (text := _damage(path))]


def _no_config(names: Collection[str]) -> Iterator[str]:
    if "config.json" not in names:
        yield "config.json"


def _no_weights(names: Collection[str]) -> Iterator[str]:
    if not any(is_weights(name) for name in names) and not set(INDICES) & set(names):
        yield "weights (*.safetensors or pytorch_model*.bin)"


def _no_tokenizer(names: Collection[str]) -> Iterator[str]:
    if any(name.endswith(_VOCABULARIES) for name in names):
        return
    if "vocab.json" not in names:
        yield "tokenizer (tokenizer.json, tokenizer.model, or vocab.json and merges.txt)"
    elif "merges.txt" not in names:
        yield "merges.txt beside vocab.json"


def _no_adapter(names: Collection[str]) -> Iterator[str]:
    if "adapter_config.json" not in names:
        yield "adapter_config.json"
    if not {"adapter_model.safetensors", "adapter_model.bin"} & set(names):
        yield "adapter_model.safetensors"


_MISSING: dict[str, Callable[[Collection[str]], Iterator[str]]] = {
    CONFIG: _no_config,
    WEIGHTS: _no_weights,
    TOKENIZER: _no_tokenizer,
    ADAPTER: _no_adapter,
}


def is_weights(name: str) -> bool:
    """Whether a name is one of a base model's weights: not an adapter's, not optimizer.bin."""
    if name.endswith(".safetensors"):
        return not name.startswith("adapter_")
    return name.startswith("pytorch_model") and name.endswith(".bin")


def _lost_shards(folder: Path) -> list[str]:
    """The shards that the index names and the folder has not; a damaged index names none."""
    entry = next((name for name in ENTRIES if (folder / name).exists()), None)
    if entry not in INDICES:
        return []
    try:
        shards = read_json(folder / entry).get("weight_map", {}).values()
    except (OSError, *UNREADABLE):
        return []
    return sorted(name for name in set(shards) if not (folder / name).exists())


def _damage(path: Path) -> str:
    """What is wrong with a file that is there, or nothing."""
    try:
        if files.head(path, len(_POINTER)) == _POINTER:
            return f"{path} is a Git LFS pointer and not the file; run `git lfs pull` there"
        if path.suffix == ".json":
            read_json(path)
        elif path.suffix == ".safetensors":
            _check_length(path)
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    except UNREADABLE as error:
        return f"{path} is cut off or damaged: {error}"
    return ""


def _check_length(path: Path) -> None:
    """Raises ValueError where a safetensors file is shorter or longer than its header says."""
    ends = [entry["data_offsets"][1] for entry in header(path).values()]
    with path.open("rb") as stream:
        begin = 8 + int(struct.unpack("<Q", stream.read(8))[0])
    if path.stat().st_size != begin + max(ends, default=0):
        raise ValueError("its length is not what its header says")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises OSError, or ValueError where it holds anything else."""
    return parse(files.read_bytes(path))


def parse(content: bytes) -> dict[str, Any]:
    """The JSON object in `content`. Raises ValueError where it is anything else."""
    found = files.parse(content)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004  # the file's type, not the code's
    return found


def modules(folder: Path) -> list[str]:
    """The layers that a model's safetensors speak of, in order; none where there are none or they
    cannot be read."""
    entry = next((name for name in ENTRIES[:2] if (folder / name).exists()), None)
    if entry is None:
        return []
    try:
        path = folder / entry
        names = read_json(path)["weight_map"] if entry in INDICES else header(path)
        return list(dict.fromkeys(str(name).rpartition(".")[0] for name in names))
    except UNREADABLE:
        return []


def parameters(folder: Path) -> int | None:
    """How many parameters a model's safetensors hold; None where there are none or they cannot be
    read. Of several files by the index, which may not say."""
    try:
        if (folder / ENTRIES[0]).exists():
            entries = header(folder / ENTRIES[0]).values()
            return int(sum(math.prod(entry["shape"]) for entry in entries))
        told = read_json(folder / INDICES[0])["metadata"].get("total_parameters")
        return told if isinstance(told, int) else None
    except UNREADABLE:
        return None


def tokenizer(read: Callable[[str], bytes]) -> dict[str, Any]:
    """A tokenizer_config.json, with the chat template that may stand in a file beside it; nothing
    where that is no JSON. `read` gets a file by its name and raises FileNotFoundError."""
    try:
        told = parse(read("tokenizer_config.json"))
    except (OSError, ValueError):
        return {}
    with suppress(FileNotFoundError):
        told["chat_template"] = read("chat_template.jinja").decode(errors="replace")
    return told


def has_chat_template(folder: Path) -> bool | None:
    """Whether a tokenizer lays out a chat; None where its files do not tell."""
    if any((folder / name).exists() for name in _CHATS):
        return True
    try:
        return bool(read_json(folder / "tokenizer_config.json").get("chat_template"))
    except FileNotFoundError:
        return False if any(folder.glob("tokenizer.*")) else None
    except (OSError, ValueError):
        return None

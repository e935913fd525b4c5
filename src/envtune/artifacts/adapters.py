"""An adapter and its base as names and shapes, and which belongs to which. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Tensors = Mapping[str, Mapping[str, Any]]
"""The entries of a safetensors header: name -> dtype, shape and more."""


@dataclass(frozen=True)
class Tokenizer:
    """What two tokenizers are compared by: a digest of what text becomes which token, the
    tokens that begin and end a text, the chat template. `size` is one more than the highest
    id, 0 where it could not be read."""

    vocabulary: str
    ends: tuple[str, str] = ("", "")
    template: str = ""
    size: int = 0


@dataclass(frozen=True)
class Adapter:
    """An adapter: its adapter_config.json, its tensors, its tokenizer if it has one."""

    config: Mapping[str, Any]
    tensors: Tensors
    tokenizer: Tokenizer | None = None


@dataclass(frozen=True)
class Base:
    """The model below an adapter. `tensors` is empty where it holds no safetensors."""

    config: Mapping[str, Any]
    tensors: Tensors = field(default_factory=dict)
    tokenizer: Tokenizer | None = None

    @property
    def architectures(self) -> tuple[str, ...]:
        return tuple(self.config.get("architectures") or ())

    @property
    def tied(self) -> bool:
        """Whether the output layer is the embedding: said, or told by what is not there."""
        text = self.config.get("text_config") or {}
        said = self.config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
        return bool(said) or not any(split(name)[0].endswith(OUTPUT) for name in self.tensors)


@dataclass(frozen=True)
class Embedding:
    """A layer of which the adapter brings rows.

    `tensor` is its name in the base, empty where the base has none since it is tied. `rows`
    is the adapter's tensor with all rows, `tokens` the one with the rows of `indices`.
    """

    module: str
    tensor: str
    rows: str = ""
    tokens: str = ""
    indices: tuple[int, ...] = ()


INPUT, OUTPUT = "embed_tokens", "lm_head"
LORA = ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B")
TOKENS = "token_adapter.trainable_tokens_delta"
_COPY = "base_layer.weight"
ROWS = ("weight", _COPY, f"token_adapter.{_COPY}")
_PART = re.compile(
    r"\.(lora_[AB]\.(?:weight|bias)|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?"
    r"|(?:modules_to_save|original_module)\..+|token_adapter\.trainable_tokens_delta"
    r"|(?:token_adapter\.)?base_layer\.(?:weight|bias)|weight|bias)$"
)
# The same layer may stand below another prefix in the file than in the model.
_TAIL = re.compile(r"\b(?:layers|blocks|h)\.\d+\..+|[^.]+$")


def split(key: str) -> tuple[str, str]:
    """A tensor's name as the module that it belongs to and its part there."""
    name = key.removeprefix("base_model.model.")
    found = _PART.search(name)
    return (name[: found.start()], found[1]) if found else (name, "")


def ranks(config: Mapping[str, Any]) -> list[int]:
    """The rank of an adapter and those of its rank_pattern."""
    return [int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]


def rank(config: Mapping[str, Any], module: str) -> int:
    """The rank of one layer: of rank_pattern's keys the first that ends the name counts."""
    for key, value in (config.get("rank_pattern") or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return int(value)
    return int(config["r"])


class Layers:
    """Finds a module's weights among a model's tensors."""

    def __init__(self, tensors: Tensors) -> None:
        self._tensors = tensors
        self._below: dict[str, list[str]] = {}
        for name in tensors:
            self._below.setdefault(_tail(name.rpartition(".")[0]), []).append(name)

    def known(self, module: str) -> bool:
        return _tail(module) in self._below

    def weights(self, module: str) -> list[str]:
        """The one of that very name, or else those that end like it."""
        if (exact := f"{module}.weight") in self._tensors:
            return [exact]
        return [name for name in self._below.get(_tail(module), ()) if name.endswith(".weight")]

    def weight(self, module: str) -> str:
        """The one weight of a module; empty where there is none or more than one."""
        found = self.weights(module)
        return found[0] if len(found) == 1 else ""


def _tail(module: str) -> str:
    found = _TAIL.search(module)
    return found.group() if found else module


def embeddings(adapter: Adapter, base: Base) -> tuple[Embedding, ...]:
    """The layers of which the adapter brings rows, by name."""
    found: dict[str, dict[str, str]] = {}
    for key in sorted(adapter.tensors):
        module, part = split(key)
        if part == TOKENS or (part in ROWS and not _is_a_copy(adapter, base, key)):
            found.setdefault(module, {})["tokens" if part == TOKENS else "rows"] = key
    layers = Layers(base.tensors)
    return tuple(
        Embedding(module, layers.weight(module), indices=_indices(adapter, module, keys), **keys)
        for module, keys in found.items()
    )


def _is_a_copy(adapter: Adapter, base: Base, key: str) -> bool:
    """PEFT saves the base's own rows beside a LoRA on them; resized, they are not its own."""
    module, part = split(key)
    if part != _COPY:
        return False
    layers = Layers(base.tensors)
    own = layers.weight(module) or layers.weight(INPUT)
    return not own or list(base.tensors[own]["shape"]) == list(adapter.tensors[key]["shape"])


def _indices(adapter: Adapter, module: str, keys: Mapping[str, str]) -> tuple[int, ...]:
    """The ids of the rows in `tokens`, in its order. A tied layer has those of the other."""
    given = adapter.config.get("trainable_token_indices") or ()
    if isinstance(given, Mapping):
        ending = (ids for name, ids in given.items() if f".{module}".endswith(f".{name}"))
        given = next(ending, next(iter(given.values()), ()))
    return tuple(given) if "tokens" in keys else ()


def lora_pairs(adapter: Adapter) -> Iterator[tuple[str, dict[str, list[int]]]]:
    """Each module with a LoRA, and the shapes of its parts."""
    found: dict[str, dict[str, list[int]]] = {}
    for key, entry in adapter.tensors.items():
        module, part = split(key)
        if part in LORA:
            found.setdefault(module, {})[part] = list(entry["shape"])
    yield from found.items()

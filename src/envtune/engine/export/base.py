"""A base model on disk: its files of weights, and what their tensors are called."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from envtune.artifacts import adapterfiles
from envtune.artifacts.adapterfiles import INDEX, SINGLE
from envtune.artifacts.modelfiles import read_json
from envtune.engine.export import fourbit
from envtune.engine.export.lora import Unmergeable
from envtune.engine.export.renamed import names_in_memory
from envtune.engine.export.shards import Entry, read_entries

_INPUTS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_OUTPUTS = ("lm_head.weight", "embed_out.weight")


@dataclass(frozen=True)
class Base:
    """A model's configuration; by file the tensors that it makes, and its metadata.

    `packed` are those that lie in 4 bits. Their entries are as they will be written.
    """

    folder: Path
    config: Mapping[str, Any]
    files: Mapping[str, list[Entry]]
    metadata: Mapping[str, dict[str, str]]
    packed: Mapping[str, fourbit.Parts] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.config.get("quantization_config") and not self.packed:
            kind = self.config["quantization_config"].get("quant_method")
            text = f"the base {self.folder} is quantised ({kind}), and not to bitsandbytes' 4 bits"
            raise Unmergeable(f"{text}; merge into the original")

    @cached_property
    def tensors(self) -> dict[str, Entry]:
        return {entry.name: entry for entries in self.files.values() for entry in entries}

    def input(self) -> str:
        """The name of the input embedding's tensor, or ""."""
        return next((name for name in self.tensors if name.endswith(_INPUTS)), "")

    def output(self) -> str:
        """The name of the output embedding's tensor, or "" where it is not in the files."""
        return next((name for name in self.tensors if name.endswith(_OUTPUTS)), "")

    def is_tied(self) -> bool:
        """Whether the input embedding is the output's too."""
        return bool(self.input()) and (
            not self.output() or self.config.get("tie_word_embeddings") is True
        )

    def stored(self, name: str) -> str:
        """What the files call a tensor of the model in memory, or ""."""
        return name if name in self.tensors else self._renamed.get(name, "")

    @cached_property
    def _renamed(self) -> dict[str, str]:
        """Asked only where a name is not in the files: it imports transformers."""
        return names_in_memory(self.folder, self.tensors)


def is_output(name: str) -> bool:
    return name.endswith(_OUTPUTS)


def read(folder: Path) -> Base:
    """The configuration and headers of a model whose files are whole. Raises Unmergeable."""
    if not (names := adapterfiles.shards(folder)):
        raise Unmergeable(f"the base {folder} has no {SINGLE} and no {INDEX}")
    found = {name: read_entries(folder / name) for name in names}
    packed = fourbit.packed(folder, {name: entries for name, (entries, _) in found.items()})
    return Base(
        folder,
        read_json(folder / "config.json"),
        {name: fourbit.unpacked(entries, packed) for name, (entries, _) in found.items()},
        {name: metadata for name, (_, metadata) in found.items()},
        packed,
    )

"""Models of real sizes whose weights are a header and a hole: what a check reads of them, and no
disk. Nothing can be trained with one."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def write(folder: Path, config: dict[str, Any], parameters: int, tokenizer: Path) -> Path:
    """A model folder of one sparse safetensors file, with the tokenizer of another folder."""
    folder.mkdir(parents=True)
    architecture = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 131072}
    (folder / "config.json").write_text(json.dumps({**architecture, **config}))
    for name in _TOKENIZER:
        shutil.copy(tokenizer / name, folder)
    size = 2 * parameters
    entry = {"dtype": "BF16", "shape": [parameters], "data_offsets": [0, size]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + size)
    return folder

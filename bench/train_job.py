"""The job that every contender of bench/train.py does: a model of random weights, and rows.

Shapes are those of well-known models; rows are conversations whose lengths are lognormal, as
instruction data's are. Nothing is fetched. The tokenizer is the embedded model's.
"""

import json
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.engine import embedded

# Hidden, layers, heads, key-value heads, feed-forward, vocabulary, embeddings tied.
SHAPES = {
    "1b": (2048, 16, 32, 8, 8192, 128256, True),
    "3b": (3072, 28, 24, 8, 8192, 128256, True),
    "8b": (4096, 32, 32, 8, 14336, 128256, False),
}
ROWS, WORDS, LONGEST = 12_000, 300, 1_900
# Positions that a model has, tokens.
_POSITIONS = 8192


@dataclass(frozen=True)
class Job:
    """Where model and rows lie, how many tokens a sequence has, and whether a GPU is there."""

    model: str
    rows: str
    length: int
    gpu: bool

    def lora(self) -> dict[str, Any]:
        """What makes it the same job for all: the adapter, its learning rate, the length."""
        return {
            "base_model": self.model,
            "datasets": [{"path": self.rows, "ds_type": "json", "type": "chat_template",
                          "field_messages": "messages"}],
            "adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_target_linear": True,
            "learning_rate": 2e-4, "sequence_len": self.length,
        }  # fmt: skip


def make(folder: Path, model: str, *, gpu: bool) -> Job:
    """The job with a shape, the embedded tiny model ("tiny"), or a folder or name of a model."""
    rows, length = folder / "rows.jsonl", 2048 if gpu else 128
    if not rows.exists():
        _write_rows(rows, ROWS if gpu else 400, WORDS if gpu else 20, LONGEST if gpu else 60)
    if model != "tiny" and model not in SHAPES:
        return Job(model, str(rows), length, gpu)
    place = folder / model
    if not (place / "model.safetensors.index.json").exists() and not list(place.glob("*.safe*")):
        place.mkdir(parents=True, exist_ok=True)
        embedded.make_tokenizer(place)
        embedded.make_model(place) if model == "tiny" else _weights(place, SHAPES[model], gpu=gpu)
    return Job(str(place), str(rows), length, gpu)


def _write_rows(path: Path, count: int, mean: int, longest: int) -> None:
    dice = random.Random(7)
    words = [
        word for row in embedded.rows() for m in row["messages"] for word in m["content"].split()
    ]
    with path.open("w") as stream:
        for _ in range(count):
            length = min(longest, max(8, int(dice.lognormvariate(math.log(mean) - 0.32, 0.8))))
            text = dice.choices(words, k=length)
            cut = length // 6 + 1
            turns = [
                {"role": "user", "content": " ".join(text[:cut])},
                {"role": "assistant", "content": " ".join(text[cut:])},
            ]
            stream.write(json.dumps({"messages": turns}) + "\n")


def _weights(place: Path, shape: tuple[Any, ...], *, gpu: bool) -> None:
    """Random weights in bfloat16, drawn where they are drawn fastest."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    hidden, layers, heads, kv, ffn, vocabulary, tied = shape
    config = LlamaConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv, intermediate_size=ffn, vocab_size=vocabulary,
        tie_word_embeddings=tied, max_position_embeddings=_POSITIONS,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(7)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if gpu else "cpu"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(place)

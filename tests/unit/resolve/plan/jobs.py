"""Models and rows that plans are made of in tests, and the runs that were recorded."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from envtune.resolve.plan import cards, rows
from envtune.resolve.plan.cards import Card
from envtune.resolve.plan.choose import Job
from envtune.resolve.plan.memory import NONE, RECOMPUTE, Choice
from envtune.resolve.plan.shapes import Shape

# What a config.json of each says.
CONFIGS: dict[str, dict[str, Any]] = {
    "1b": {
        "model_type": "llama", "hidden_size": 2048, "num_hidden_layers": 16,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
        "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "3b": {
        "model_type": "llama", "hidden_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
        "intermediate_size": 8192, "vocab_size": 128256, "tie_word_embeddings": True,
    },
    "8b": {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "q7": {
        "model_type": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944,
        "vocab_size": 152064, "tie_word_embeddings": False,
    },
    "q14": {
        "model_type": "qwen2", "hidden_size": 5120, "num_hidden_layers": 48,
        "num_attention_heads": 40, "num_key_value_heads": 8, "intermediate_size": 13824,
        "vocab_size": 152064, "tie_word_embeddings": False,
    },
    "70b": {
        "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672,
        "vocab_size": 128256, "tie_word_embeddings": False,
    },
    "30b-a3b": {
        "model_type": "qwen3_moe", "hidden_size": 2048, "num_hidden_layers": 48,
        "num_attention_heads": 32, "num_key_value_heads": 4, "head_dim": 128,
        "intermediate_size": 6144, "moe_intermediate_size": 768, "num_experts": 128,
        "num_experts_per_tok": 8, "vocab_size": 151936, "tie_word_embeddings": False,
    },
}  # fmt: skip
CARDS: dict[str, Card] = {card.name: card for card in cards.CARDS}
RECORDED: dict[str, Any] = json.loads(
    (Path(__file__).parent / "h200.json").read_text(encoding="utf-8")
)
# 52,000 rows as short as instructions are.
SHORT = replace(rows.supposed(), rows=52000)


def shape(name: str) -> Shape:
    from envtune.resolve.plan import shapes

    made = shapes.of(CONFIGS[name])
    assert made is not None
    return made


def choice(run: dict[str, Any]) -> Choice:
    """What a recorded run was trained with."""
    return Choice(
        run["method"],
        run["micro"],
        run.get("sequence", 2048),
        recompute=RECOMPUTE if run["recompute"] else NONE,
        liger=run["liger"],
        kernels=run.get("kernels", True),
    )


def job(model: str, method: str, card: str, **more: Any) -> Job:
    return Job(shape(model), CARDS[card], SHORT, Choice(method, 1, 2048), **more)

"""The folder in which the cases are tried: a model of two layers, rows, and slips beside them."""

import json
from pathlib import Path
from typing import Any

from tests.unit.builders import floats, write_weights

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "max_position_embeddings": 512,
    "num_hidden_layers": 2,
}
LAYERS = [
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
]
NAMES = ["model.embed_tokens.weight"] + [
    f"model.layers.{n}.{layer}.weight" for n in range(2) for layer in LAYERS
]
ROWS = {
    "alpaca": {"instruction": "a", "output": "b"},
    "chat": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    "pairs": {"prompt": "a", "chosen": "b", "rejected": "c"},
    "asked": {"question": "a", "chosen": "b", "rejected": "c"},
    "liked": {"prompt": "a", "completion": "b", "label": True},
    "text": {"text": "a b c"},
}


def furnish(place: Path) -> None:
    """Models, rows, templates and checkpoints, named as the cases name them."""
    model(place / "model", chat="{{ messages }}")
    model(place / "mute")
    model(place / "sharded", index=True, chat="{{ messages }}")
    for method in ("gptq", "awq", "compressed-tensors", "hqq", "aqlm", "bitsandbytes"):
        packed = {"quantization_config": {"quant_method": method}}
        model(place / method, chat="{{ messages }}", **packed)
    experts = {"architectures": ["MixtralForCausalLM"], "num_local_experts": 8}
    model(place / "experts", chat="{{ messages }}", **experts)
    for name, row in ROWS.items():
        (place / f"{name}.jsonl").write_text(f"{json.dumps(row)}\n" * 10)
    (place / "list.json").write_text(json.dumps([ROWS["alpaca"]] * 10))
    (place / "rows").mkdir()
    (place / "rows" / "train.jsonl").write_text(f"{json.dumps(ROWS['alpaca'])}\n" * 10)
    (place / "good.jinja").write_text("{% generation %}{{ messages }}{% endgeneration %}")
    (place / "bad.jinja").write_text("{% for m in messages %}")
    (place / "ds.json").write_text("{}")
    (place / "checkpoint-5").mkdir()
    (place / "checkpoint-5" / "trainer_state.json").write_text('{"global_step": 5}')
    model(place / "outputs" / "other", chat="{{ messages }}")


def model(folder: Path, *, chat: str = "", index: bool = False, **config: Any) -> None:
    """A folder whose layers have names and no weights to speak of."""
    folder.mkdir(parents=True)
    name = "model-00001-of-00001.safetensors" if index else "model.safetensors"
    write_weights(folder / name, dict.fromkeys(NAMES, floats(1.0)))
    if index:
        names = {"weight_map": dict.fromkeys(NAMES, name)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(names))
    tokenizer = {"chat_template": chat} if chat else {}
    files = {"config.json": CONFIG | config, "tokenizer_config.json": tokenizer}
    for file, content in (files | {"tokenizer.json": {}}).items():
        (folder / file).write_text(json.dumps(content))

"""The memory of an export and of a merge, beside the size of the model.

Run by `make bench-memory`. The bases are random Llamas in bfloat16 with a vocabulary of
128k x 1024, one three times the other; the adapters hold what takes the most memory. Printed
are the peaks of anonymous memory, which should be below 350 MB and three times the largest
tensor, whatever the model's size.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from merge import BIN, largest, measure

from envtune.render import launch

VOCABULARY, HIDDEN, ADDED = 128 * 1024, 1024, 3
LAYERS = (2, 44)
LINEAR = ["q_proj", "v_proj", "down_proj"]
ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA of the embedding": {"target_modules": [*LINEAR, "embed_tokens", "lm_head"]},
    "DoRA of the embedding": {"target_modules": ["embed_tokens", "lm_head"], "use_dora": True},
    "single tokens": {"target_modules": LINEAR, "trainable_token_indices": [*range(64)]},
    "added tokens": {"target_modules": LINEAR},
}


def make(folder: Path, layers: int) -> None:
    """A random base and each of the adapters for it."""
    import peft
    import transformers

    from envtune.engine import embedded

    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=2816, num_attention_heads=8,
        num_key_value_heads=4, num_hidden_layers=layers, tie_word_embeddings=False,
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "base", max_shard_size="400MB")
    for name, settings in ADAPTERS.items():
        if name == "added tokens":
            model.resize_token_embeddings(VOCABULARY + ADDED, mean_resizing=False)
        tuned = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.01)
        tuned.save_pretrained(folder / name, save_embedding_layers=name == "added tokens")
        embedded.make_tokenizer(folder / name)
        model = tuned.unload()
    embedded.make_tokenizer(folder / "base")


def command(module: str, folder: Path, adapter: str) -> list[str]:
    base, made = str(folder / "base"), str(folder / "made" / module)
    order = {
        "adapter": str(folder / adapter), "base": base, "base_folder": base, "serving": made,
        "target": made, "new_embeddings": True,
    }  # fmt: skip
    path = folder / "order.json"
    path.write_text(json.dumps(order))
    return [str(BIN / "python"), "-m", launch.ENGINE[module], str(path)]


def main() -> None:
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]))
        return
    print(f"{'base MB':>8}  {'adapter':24}{'module':8}{'wall s':>8}{'CPU s':>8}{'RssAnon MB':>12}")
    for layers in LAYERS:
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
            folder = Path(name)
            measure([sys.executable, __file__, "make", name, str(layers)], folder)
            size = sum(path.stat().st_size for path in (folder / "base").iterdir()) / 2**20
            for adapter in ADAPTERS:
                for module in ("export", "merge"):
                    (folder / "made").mkdir(exist_ok=True)
                    cost = measure(command(module, folder, adapter), folder)
                    figures = f"{cost.wall:8.1f}{cost.cpu:8.1f}{cost.anonymous:12.0f}"
                    print(f"{size:8.0f}  {adapter:24}{module:8}{figures}", flush=True)
            bound = 350 + 3 * largest(folder / "base")
    print(f"the bound on anonymous memory: {bound:.0f} MB")


if __name__ == "__main__":
    main()

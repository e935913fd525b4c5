"""How far the loss of a packed document is from the one that it has alone, in Axolotl's trainer.

    python -m tests.packed_alone FOLDER-OF-THE-EMBEDDED-MODEL SEED

Trains some steps on planned rows in float32, of texts of which every token is learned, then looks
at all documents of an epoch as the trainer's own loader packs them. Prints JSON. Axolotl changes classes of transformers for all that
runs in its process, so this has one of its own.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"AXOLOTL_DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": ""}

import torch
from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets
from axolotl.train import setup_model_and_trainer
from transformers import set_seed

from envtune.engine.packing import sampler

_MASKED = -100


def texts(chats: Path) -> str:
    """A file with each chat as one text, whose first token has a label too."""
    said = (json.loads(line)["messages"] for line in chats.read_text().splitlines())
    lines = (json.dumps({"text": "\n".join(turn["content"] for turn in turns)}) for turns in said)
    Path("texts.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return "texts.jsonl"


def trainer_of(folder: Path, seed: int) -> Any:
    """A trainer as Axolotl makes it, with our sampler."""
    path = texts(folder / "instructions.jsonl")
    rows = {"path": path, "ds_type": "json", "type": "completion"}
    kernels = {f"lora_{name}_kernel": False for name in ("mlp", "qkv", "o", "embedding")}
    config = {
        "base_model": str(folder / "tiny-llama"), "output_dir": "out", "datasets": [rows],
        "dataset_prepared_path": "prepared", "dataset_num_proc": 1, "sequence_len": 128, "seed": seed,
        "sample_packing": True, "attn_implementation": "sdpa",
        "micro_batch_size": 2, "gradient_accumulation_steps": 2, "num_epochs": 3, "max_steps": 6,
        "learning_rate": 5e-3, "optimizer": "adamw_torch", "lr_scheduler": "cosine",
        "adapter": "lora", "lora_r": 8, "lora_alpha": 16, "lora_target_linear": True,
        "bf16": False, "fp16": False, "save_strategy": "no", **kernels,
    }  # fmt: skip
    Path("config.yaml").write_text(json.dumps(config))
    cfg = load_cfg("config.yaml")
    sampler.spare_estimates(cfg)
    set_seed(seed)  # as the plugin does, before the adapter is drawn
    trainer, *_ = setup_model_and_trainer(cfg, load_datasets(cfg=cfg))
    trainer.add_callback(sampler.Packing(trainer))
    return trainer


def losses(model: Any, inputs: dict[str, Any]) -> Any:
    """The loss of each token that is learned, and 0 of the others: rows x (tokens - 1)."""
    shown = {name: inputs[name] for name in ("input_ids", "position_ids") if name in inputs}
    logits = model(**shown, use_cache=False).logits[:, :-1].double()  # it is they that may differ
    labels = inputs["labels"][:, 1:]
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


def compare(trainer: Any) -> dict[str, Any]:
    """The largest difference of a document's mean loss, and how many labels were learned."""
    model, rows = trainer.model.eval(), trainer.train_dataset
    told = {"documents": 0, "worst": 0.0, "packed_labels": 0}
    told["labels"] = sum(label != _MASKED for row in rows for label in row["labels"][1:])
    dealt = trainer._get_train_sampler()
    for batch, numbers in zip(trainer.get_train_dataloader(), dealt, strict=True):
        assert "attention_mask" not in batch  # with one, documents would see each other
        told["packed_labels"] += int((batch["labels"] != _MASKED).sum())
        for row, among in zip(losses(model, batch), numbers, strict=True):
            first = 0
            for document in (rows[number] for number in among):
                inputs = {n: torch.tensor([document[n]]) for n in ("input_ids", "labels")}
                alone = losses(model, inputs)[0]
                part = row[first : first + len(alone)]
                assert torch.equal(part != 0, alone != 0)
                apart = float((part.sum() - alone.sum()) / max(1, int((alone != 0).sum())))
                told["worst"] = max(told["worst"], abs(apart))
                told["documents"] += 1
                first += len(alone) + 1
    return told


if __name__ == "__main__":
    made = trainer_of(Path(sys.argv[1]), int(sys.argv[2]))
    made.train()
    with torch.no_grad():
        print(json.dumps(compare(made)))

"""Prepared rows: the same ones in the same order as Axolotl's, kept by content, whole or not there."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml
from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets
from axolotl.utils.dict import DictDefault
from datasets import load_from_disk

from envtune.data.batches import BadRow, Batch
from envtune.engine.data import handover, tokenised
from envtune.engine.data.made import Beyond
from envtune.errors import Exit, Refused
from tests import rows_made

DRILL = bool(os.environ.get("DRILL"))
Prepared = dict[str, Any]


def read(path: Path, keys: Mapping[str, Any]) -> tokenised.Read:
    """A file's rows, some at once."""

    def batches() -> Iterator[tuple[Mapping[str, Any], Batch]]:
        rows = rows_made.jsonl(path)
        for first in range(0, len(rows), 50):
            some = rows[first : first + 50]
            yield keys, Batch(path.name, range(first + 1, first + 1 + len(some)), some)

    return batches


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def item(path: str, **keys: Any) -> dict[str, Any]:
    return {"path": path, "ds_type": "json", "type": "alpaca", **keys}


def prepare(config: dict[str, Any], folder: Path, **more: Any) -> Prepared:
    rows = {"train": [read(Path(i["path"]), i) for i in config["datasets"]]}
    if config.get("test_datasets"):
        rows["test"] = [read(Path(i["path"]), i) for i in config["test_datasets"]]
    return tokenised.prepare(config, Path(config["base_model"]), rows, folder / "store", **more)


@pytest.fixture
def config(embedded: Path, tmp_path: Path, dice: Random) -> dict[str, Any]:
    """A run on rows of which some are too long."""
    rows = rows_made.instructions(dice, 120)
    for row in rows:
        row.setdefault("input", "")
    return {
        "base_model": str(embedded / "tiny-llama"), "output_dir": str(tmp_path / "out"),
        "datasets": [item(write(tmp_path / "rows.jsonl", rows))],
        "dataset_prepared_path": str(tmp_path / "theirs"), "sequence_len": 400, "seed": 11,
        "micro_batch_size": 2, "gradient_accumulation_steps": 1, "num_epochs": 1, "learning_rate": 1e-3,
        "optimizer": "adamw_torch", "lr_scheduler": "cosine", "bf16": False, "fp16": False,
        "dataset_num_proc": 1, "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True,
    }  # fmt: skip


def theirs(config: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """Axolotl's configuration and the rows that it prepares."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    cfg = load_cfg(str(path))
    return cfg, load_datasets(cfg=cfg)


def listed(rows: Any) -> list[dict[str, Any]] | None:
    return None if rows is None else [dict(sorted(row.items())) for row in rows]


MORE: dict[str, Callable[[dict[str, Any], Path, Random], dict[str, Any]]] = {
    "split": lambda config, folder, dice: {"val_set_size": 0.1},
    "split by count": lambda config, folder, dice: {"val_set_size": 7, "shuffle_merged_datasets": False},
    "packed": lambda config, folder, dice: {"sample_packing": True, "val_set_size": 0.3, "attn_implementation": "sdpa"},
    "packed, not evaluated so": lambda config, folder, dice: {
        "sample_packing": True, "eval_sample_packing": False, "attn_implementation": "sdpa",
        "test_datasets": [item(write(folder / "test.jsonl", rows_made.instructions(dice, 30)), split="train")],
    },
    "cut": lambda config, folder, dice: {
        "excess_length_strategy": "truncate", "sequence_len": 350, "min_sample_len": 260,
        "test_datasets": [item(write(folder / "test.jsonl", rows_made.instructions(dice, 30)), split="train")],
        "eval_sequence_len": 300,
    },
    "two of two kinds": lambda config, folder, dice: {
        "datasets": [
            *config["datasets"],
            item(write(folder / "chats.jsonl", rows_made.conversations(dice, 40)), type="chat_template", chat_template="chatml"),
            item(write(folder / "texts.jsonl", [{"text": rows_made.text(dice) * 9} for _ in range(20)]), type="completion"),
        ],
        "shuffle_before_merging_datasets": True, "sequence_len": 300,
    },
    "equal rows": lambda config, folder, dice: {"datasets": config["datasets"] * 2, "dataset_exact_deduplication": True},
}  # fmt: skip


@pytest.mark.parametrize("name", MORE if DRILL else list(MORE)[2:6])
def test_the_rows_their_order_and_the_steps_are_axolotls(
    config: dict[str, Any], tmp_path: Path, dice: Random, name: str
) -> None:
    config |= MORE[name](config, tmp_path, dice)
    cfg, wanted = theirs(config, tmp_path)
    handover.say(tmp_path, prepare(config, tmp_path))
    fresh = DictDefault({k: v for k, v in cfg.items() if not k.startswith(("total_", "sample_packing_eff"))})
    made = handover.meta(fresh, tmp_path)
    assert listed(made.train_dataset) == listed(wanted.train_dataset)
    assert listed(made.eval_dataset) == listed(wanted.eval_dataset)
    assert made.total_num_steps == wanted.total_num_steps
    for column, feature in made.train_dataset.features.items():
        assert feature == wanted.train_dataset.features[column], column

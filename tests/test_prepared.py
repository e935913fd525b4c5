"""Prepared rows: the same ones in the same order as Axolotl's, kept by content, whole or not there."""

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from axolotl.cli.config import load_cfg
from axolotl.common.datasets import load_datasets
from axolotl.utils.dict import DictDefault
from datasets import List, Value, load_from_disk

from envtune.data.batches import BadRow, Batch
from envtune.engine.data import figures, handover, tokenised
from envtune.engine.data.types.made import Beyond
from envtune.errors import Exit, Refused
from tests import harness, rows_made

DRILL = bool(os.environ.get("DRILL"))
Prepared = dict[str, Any]
# In half of Axolotl's bytes.
Labels = List(Value("int32"))


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
    wanted = tokenised.Wanted(config, Path(config["base_model"]), rows, **more)
    return tokenised.prepare(wanted, folder / "store")


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
    torch.manual_seed(5)  # which packed rows' steps are estimated with
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


@pytest.mark.parametrize("name", MORE if DRILL else list(MORE)[3:6])
def test_the_rows_their_order_and_the_steps_are_axolotls(
    config: dict[str, Any], tmp_path: Path, dice: Random, name: str
) -> None:
    config |= MORE[name](config, tmp_path, dice)
    cfg, wanted = theirs(config, tmp_path)
    handover.say(tmp_path, prepare(config, tmp_path))
    fresh = DictDefault(
        {k: v for k, v in cfg.items() if not k.startswith(("total_", "sample_packing_eff"))}
    )
    torch.manual_seed(5)
    made = handover.meta(fresh, tmp_path)
    assert listed(made.train_dataset) == listed(wanted.train_dataset)
    assert listed(made.eval_dataset) == listed(wanted.eval_dataset)
    assert made.total_num_steps == wanted.total_num_steps
    for column, feature in made.train_dataset.features.items():
        kind = wanted.train_dataset.features[column]
        assert feature == (Labels if column == "labels" else kind), column


# --- kept by content ------------------------------------------------------------------------


def test_the_same_rows_are_found_again_and_others_are_told_apart(
    config: dict[str, Any], tmp_path: Path
) -> None:
    first = prepare(config, tmp_path, content="rows", caches=tmp_path / "caches")
    assert (first["hit"], first["because"]) == (False, "nothing was prepared before")
    again = prepare({**config, "learning_rate": 2e-3}, tmp_path, content="rows")
    assert again["hit"]
    assert again["folder"] == first["folder"]
    assert again["manifest"] == first["manifest"]
    other = prepare({**config, "sequence_len": 390}, tmp_path, content="rows")
    assert (other["hit"], other["because"]) == (False, "other than before: sequence_len")
    assert "rows" in prepare(config, tmp_path, content="others")["because"]
    for key in ("response_template", "instruction_template"):  # what decides rows of a template
        assert prepare({**config, key: "A:"}, tmp_path, content="rows")["because"].endswith(key)


@pytest.mark.parametrize("damage", ["cut", "changed", "gone", "no manifest"])
def test_what_is_damaged_is_prepared_anew(
    config: dict[str, Any], tmp_path: Path, dice: Random, damage: str
) -> None:
    made = prepare(config, tmp_path, content="rows")
    folder = Path(made["folder"])
    shard = folder / made["manifest"]["splits"]["train"]["shards"][0]["file"]
    whole = shard.read_bytes()
    if damage == "no manifest":
        (folder / "manifest.json").unlink()
    elif damage == "gone":
        shard.unlink()
    else:
        at = dice.randrange(len(whole))
        shard.write_bytes(
            whole[:at] if damage == "cut" else whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        )
    again = prepare(config, tmp_path, content="rows")
    assert not again["hit"]
    assert "damaged" in again["because"]
    assert shard.read_bytes() == whole


def test_a_preparation_that_is_killed_leaves_nothing_and_is_made_anew_with_the_same_bytes(
    config: dict[str, Any], tmp_path: Path, dice: Random
) -> None:
    def told(folder: Path) -> dict[str, bytes]:
        return {
            p.name: p.read_bytes()
            for p in sorted(folder.rglob("*"))
            if p.suffix in (".arrow", ".json") and p.name != "manifest.json"
        }

    wanted = told(Path(prepare(config, tmp_path, content="rows")["folder"]))
    for number in range(40 if DRILL else 4):
        folder = tmp_path / f"killed-{number}"
        child = os.fork()
        if not child:  # ends where the alarm finds it, as a kill does
            signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.001, 0.12))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            prepare(config, folder, content="rows")
            os._exit(0)
        os.waitpid(child, 0)
        made = prepare(config, folder, content="rows")
        assert told(Path(made["folder"])) == wanted
        assert [p.name for p in (folder / "store").iterdir() if not p.name.endswith(".lock")] == [
            Path(made["folder"]).name
        ]


# --- what cannot be trained on --------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "row", "said"),
    [
        ({}, {"instruction": "a"}, "rows.jsonl:121: it has no column 'output'"),
        ({}, {"instruction": "a", "output": ["b"]}, "the answer is ['b'], and no text"),
        ({}, {"instruction": "a", "output": "b\ud800"}, "half of a surrogate pair"),
        ({"type": "chat_template", "chat_template": "chatml"}, {"messages": []}, "no list of messages"),
        ({"type": "chat_template", "chat_template": "chatml"}, {"messages": [{"content": "a"}]}, "has no 'role'"),
        ({"type": "chat_template", "chat_template": "gemma"}, {"messages": [{"role": "system", "content": "a"}]}, "System role not supported"),
        ({"type": "input_output"}, {"segments": [{"text": "a"}]}, "segments is no list"),
        ({"type": "completion"}, {"story": "a"}, "it has no column 'text'"),
    ],
)  # fmt: skip
def test_a_row_that_axolotl_would_fail_at_is_told_with_its_place(
    config: dict[str, Any], tmp_path: Path, keys: dict[str, Any], row: dict[str, Any], said: str
) -> None:
    good = {
        "chat_template": {
            "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        },
        "input_output": {"segments": [{"label": True, "text": "a b"}]},
        "completion": {"text": "a b"},
    }.get(keys.get("type", ""), {"instruction": "a", "output": "b"})
    config["datasets"] = [item(write(tmp_path / "rows.jsonl", [good] * 120 + [row, good]), **keys)]
    with pytest.raises(BadRow) as bad:
        prepare(config, tmp_path)
    assert bad.value.where == "rows.jsonl:121"
    assert said in str(bad.value)
    left: list[BadRow] = []
    wanted = tokenised.Wanted(
        config,
        Path(config["base_model"]),
        {"train": [read(tmp_path / "rows.jsonl", config["datasets"][0])]},
    )
    made = tokenised.prepare(wanted, tmp_path / "store", left.append)
    assert [row.where for row in left] == ["rows.jsonl:121"]
    assert made["manifest"]["splits"]["train"]["rows"] == 121


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"sequence_len": 16},
            r"none of 120 rows is left to learn from: \d+ have more than the 16 tokens of AXOLOTL_SEQUENCE_LEN",
        ),
        ({"sequence_len": 16, "excess_length_strategy": "raise"}, "more than sequence_len 16"),
        ({"val_set_size": 5000}, "leaves no row to train on"),
    ],
)
def test_a_run_with_nothing_to_learn_from_is_refused(
    config: dict[str, Any], tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused, match=said) as refused:
        prepare(config | more, tmp_path)
    assert refused.value.exit == Exit.DATA
    assert [path for path in (tmp_path / "store").iterdir() if not path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("more", "keys", "said"),
    [
        ({"rl": "dpo"}, {}, "rl is set"),
        ({"seed": None}, {}, "no seed"),
        ({"tokenizer_use_fast": False}, {}, "tokenizer_use_fast"),
        ({}, {"shards": 4}, "shards is set"),
        ({}, {"type": "metharme"}, "type: metharme is laid out by Axolotl alone"),
        ({}, {"type": {"format": "{nothing}"}}, "laid out by Axolotl alone"),
        ({}, {"type": "chat_template", "chat_template": "nothing"}, "no chat template is found"),
        (
            {"eot_tokens": ["<|im_end|>"]},
            {"type": "chat_template", "chat_template": "chatml"},
            "is no token of this tokenizer",
        ),
    ],
)
def test_what_is_not_known_is_left_to_axolotl_with_the_reason(
    config: dict[str, Any], tmp_path: Path, more: dict[str, Any], keys: dict[str, Any], said: str
) -> None:
    config["datasets"][0] |= keys
    with pytest.raises(Beyond, match=said):
        prepare(config | more, tmp_path)


def test_a_tokenizer_that_is_not_there_is_left_to_axolotl(
    config: dict[str, Any], tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(Path(config["base_model"]) / "config.json", empty)
    with pytest.raises(Beyond, match="the tokenizer is not loaded"):
        prepare({**config, "base_model": str(empty)}, tmp_path)


def test_the_figures_are_those_of_the_rows(config: dict[str, Any], tmp_path: Path) -> None:
    made = prepare({**config, "val_set_size": 0.25, "sequence_len": 300}, tmp_path)
    manifest = json.loads((Path(made["folder"]) / "manifest.json").read_text())
    assert manifest == made["manifest"]
    lost = manifest["dropped"]["train"]["too_long"]["rows"]
    train = listed(load_from_disk(f"{made['folder']}/train"))
    told = manifest["splits"]["train"]
    assert train is not None
    assert told["rows"] + manifest["splits"]["eval"]["rows"] + lost == 120
    assert told["rows"] == len(train) == sum(told["lengths"].values())
    assert told["tokens"] == sum(len(row["input_ids"]) for row in train)
    learned = [[label for label in row["labels"] if label != -100] for row in train]
    assert told["trained_tokens"] == sum(map(len, learned))
    assert told["without_trained_token"] == sum(not labels for labels in learned)
    ends = 2
    assert told["without_end_of_turn"] == sum(
        bool(labels) and labels[-1] != ends for labels in learned
    )
    assert 0.5 < told["packing_fill"] <= 1


# --- trained on -----------------------------------------------------------------------------


def as_if_killed(reference: Path, run: Path, *, begun: bool) -> None:
    """A run that a kill has ended: at a checkpoint before its last, or before its first step."""
    shutil.copytree(reference, run)
    shutil.rmtree(run / "adapter")
    shutil.rmtree(run / "data", ignore_errors=True)
    (run / ".complete").unlink()
    folders = sorted((run / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    for folder in folders[1:] if begun else folders:
        shutil.rmtree(folder)
    if not begun:
        shutil.rmtree(run / "checkpoints")
        shutil.rmtree(run / "eval", ignore_errors=True)
        (run / "metrics.jsonl").unlink()
    record, outcome = harness.read(run / "run.json"), harness.read(run / "outcome.json")
    (run / "run.json").write_text(json.dumps(record | {"stages": {}}))
    (run / "outcome.json").write_text(json.dumps(outcome | {"state": "training"}))


@pytest.mark.parametrize("begun", [False, True])
def test_a_training_on_prepared_rows_is_the_one_on_raw_rows_and_axolotl_prepares_none(
    entrypoint: harness.Entrypoint, lora: Path, forking: dict[str, str], begun: bool
) -> None:
    run = entrypoint.folder / "outputs" / lora.name
    as_if_killed(lora, run, begun=begun)
    assert entrypoint.train(**forking, SFT_PREPARE="axolotl") == run
    assert harness.losses(run) == harness.losses(lora)
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (run / adapter).read_bytes() == (lora / adapter).read_bytes()
    assert list(run.glob("data/**/*.arrow"))
    assert not list(lora.glob("data/**/*.arrow"))


@pytest.mark.skipif(not DRILL, reason="DRILL=1: two ranks, and packed rows, for a minute each")
@pytest.mark.parametrize(
    "more",
    [
        {"NPROC": "2", "AXOLOTL_MAX_STEPS": "12", "AXOLOTL_SAVE_STEPS": "50"},
        {"AXOLOTL_SAMPLE_PACKING": "true", "AXOLOTL_ATTN_IMPLEMENTATION": "sdpa", "AXOLOTL_VAL_SET_SIZE": "0.2", "AXOLOTL_EVAL_STEPS": "4"},
    ],
)  # fmt: skip
def test_several_ranks_and_packed_rows_learn_the_same(
    tmp_path: Path, settings: dict[str, str], more: dict[str, str]
) -> None:
    runs = []
    for by in ("axolotl", "auto"):
        (tmp_path / by).mkdir()
        runs.append(harness.Entrypoint(tmp_path / by, settings).train(SFT_PREPARE=by, **more))
    assert [(run / "data" / "prepared.json").exists() for run in runs] == [False, True]
    assert harness.losses(runs[0]) == harness.losses(runs[1])
    evaluated = [(run / "eval" / "metrics.jsonl") for run in runs]
    assert (
        len({path.read_text().count("eval_loss") if path.exists() else 0 for path in evaluated})
        == 1
    )


@pytest.mark.parametrize(
    ("lengths", "fill"),
    [
        ([5, 5, 5, 5], 1.0),
        ([6, 4, 3, 3, 4, 10], 1.0),
        ([7, 7], 0.7),
        ([1] * 25, 25 / 30),
        ([], 0.0),
    ],
)
def test_the_fill_of_packed_rows(lengths: list[int], fill: float) -> None:
    assert figures.packing_fill(np.array(lengths, int), 10) == pytest.approx(fill)

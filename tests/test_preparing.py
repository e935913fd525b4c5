"""Every row is looked at before a training: what is wrong is named, what is left is trained."""

import json
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.harness import DEFAULTS, Entrypoint, losses, read

TURNS = [{"role": "user", "content": "Say one."}, {"role": "assistant", "content": "one"}]
MIXED: list[Any] = [
    {"messages": TURNS},
    {"prompt": "Say two.", "completion": "two"},
    {"text": "three is a number"},
    {"instruction": "Say four.", "input": "", "output": "four"},
    {"messages": [TURNS[0], {"role": "assistant", "content": None}]},
    {"Instruction": "Say six.", "Output": "six"},
    {"question": "seven?", "answer": "seven"},
    {"prompt": TURNS[:1], "completion": TURNS[1:]},
    {"messages": [TURNS[0], {"role": "chatgpt", "content": "x"}]},
    {"title": "x"},
]
FEW = {"AXOLOTL_MAX_STEPS": "2", "SFT_EXPORT": "false"}


@pytest.fixture
def start(tmp_path: Path, settings: dict[str, str], forking: dict[str, str]) -> Entrypoint:
    """A start of a few steps, with a cache of its own."""
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    return Entrypoint(tmp_path, {**settings, **DEFAULTS, **FEW, **cache, **forking})


def write(path: Path, rows: list[Any], more: str = "") -> dict[str, str]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + more)
    return {"AXOLOTL_DATASETS__0__PATH": str(path)}


def test_rows_that_are_wrong_are_named_before_anything_is_imported(
    start: Entrypoint, tmp_path: Path
) -> None:
    """Few among many, so that the check has seen none of them."""
    path = tmp_path / "rows.jsonl"
    data = write(path, [MIXED[0]] * 20_000 + MIXED, "no row\n")
    ended = start.run(**data, AXOLOTL_DATASET_NUM_PROC="2")
    assert ended.code == 3
    [order] = start.folder.glob("outputs/*/config/prepare.json")
    assert read(order)["config"]["dataset_num_proc"] == 2
    told = [f"{path}:{line}:" for line in (20_005, 20_009, 20_010, 20_011)]
    assert all(any(line.startswith(one) or one in line for line in ended.said) for one in told)
    assert "SFT_BAD_ROWS=drop" in ended.err
    assert "loading the libraries" not in ended.err


def test_each_row_trains_by_its_own_shape_and_the_wrong_ones_are_counted(
    start: Entrypoint, tmp_path: Path
) -> None:
    run = start.train(**write(tmp_path / "rows.jsonl", MIXED, "no row\n"), SFT_BAD_ROWS="drop")
    stage = read(run / "run.json")["stages"]["prepare"]
    assert stage["rows"] == {"train": 7}
    assert stage["dropped"] == {
        "no JSON": 1, "null": 1, "a role that is not known": 1, "no shape that is known": 1,
    }  # fmt: skip
    assert read(run / "data" / "sample.json")["counts"]["unlearned"] == 0
    page = (run / "data" / "sample.html").read_text()
    assert "<mark>" in page
    assert "None" not in page


def test_another_learning_rate_prepares_nothing_and_a_lost_cache_is_made_again(
    start: Entrypoint, tmp_path: Path
) -> None:
    data = write(tmp_path / "rows.jsonl", MIXED[:4])
    first = read(start.train(**data) / "run.json")["stages"]["prepare"]
    second = start.train(**data, AXOLOTL_LEARNING_RATE="1e-3", FORCE_RUN_INDEX="7")
    stage = read(second / "run.json")["stages"]["prepare"]
    assert (first["hit"], stage["hit"], stage["folder"]) == (False, True, first["folder"])
    other = start.train(**data, AXOLOTL_SEQUENCE_LEN="96", FORCE_RUN_INDEX="8")
    stage = read(other / "run.json")["stages"]["prepare"]
    assert not stage["hit"]
    assert "sequence_len" in stage["because"]


def test_rows_are_filtered_and_held_back_by_what_they_say(
    start: Entrypoint, tmp_path: Path
) -> None:
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}."} for n in range(60)]
    rows += [{"prompt": "See http://a.b/c", "completion": "x"}] * 3
    run = start.train(
        **write(tmp_path / "rows.jsonl", rows), SFT_FILTER_URLS="true", AXOLOTL_VAL_SET_SIZE="10",
        SFT_SAVE_SPLITS="true",
    )  # fmt: skip
    stage = read(run / "run.json")["stages"]["prepare"]
    assert stage["rows"] == {"train": 50, "eval": 10}
    assert stage["required"]
    kept = {name: (run / "data/splits" / name).read_text() for name in ("train.jsonl", "val.jsonl")}
    assert [text.count("\n") for text in kept.values()] == [50, 10]
    assert sorted("".join(kept.values()).splitlines()) == sorted(
        json.dumps(row, separators=(",", ":")) for row in rows[:60]
    )


def test_the_losses_are_those_of_rows_that_axolotl_prepares(start: Entrypoint) -> None:
    runs = [
        start.train(SFT_PREPARE=by, FORCE_RUN_INDEX=number, AXOLOTL_MAX_STEPS="4")
        for number, by in (("21", "auto"), ("22", "axolotl"))
    ]
    assert losses(runs[0]) == losses(runs[1])
    assert (runs[0] / "data" / "prepared.json").exists()
    assert not (runs[1] / "data" / "prepared.json").exists()


def test_what_only_a_preparation_here_can_do_is_refused_where_axolotl_prepares(
    start: Entrypoint, tmp_path: Path
) -> None:
    ended = start.run(SFT_PREPARE="axolotl", SFT_FILTER_URLS="true")
    assert ended.code == 1
    assert "SFT_PREPARE=axolotl" in ended.err
    data = write(tmp_path / "rows.jsonl", MIXED[:4])
    ended = start.run(**data, AXOLOTL_TOKENIZER_USE_FAST="false")
    assert ended.code == 3
    assert "train each row by its own shape" in ended.err


def test_a_start_that_is_stopped_while_it_prepares_leaves_nobody_and_the_next_one_finishes(
    start: Entrypoint, tmp_path: Path, dice: Random
) -> None:
    rows = [{"prompt": f"What is {n}?", "completion": f"It is {n}. " * 9} for n in range(30_000)]
    data = write(tmp_path / "rows.jsonl", rows)
    stopped = start.start(**data, AXOLOTL_DATASET_NUM_PROC="2")
    stopped.until(lambda: any(tmp_path.rglob(".*.partial")))
    time.sleep(dice.uniform(0, 1))
    stopped.signal()
    ended = stopped.wait()
    assert ended.code == 143, ended.err[-3000:]
    assert stopped.gone()
    assert not list(tmp_path.rglob(".*.partial/manifest.json"))
    made = [shards(start.train(**data, FORCE_RUN_INDEX=n, XDG_CACHE_HOME=str(tmp_path / c)))
            for n, c in (("5", "cache"), ("6", "other"))]  # fmt: skip
    assert made[0] == made[1]


def shards(run: Path) -> dict[str, bytes]:
    folder = Path(read(run / "data" / "prepared.json")["folder"])
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.arrow")}

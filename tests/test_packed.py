"""Packed rows: no document is dropped, every epoch is as long, and other batches are told. That a
killed run ends as one never stopped is in test_kills.
"""

import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envtune.engine.packing import order
from envtune.engine.packing.plan import Batch, Plan, Shape, plan
from tests.harness import ROOT, Entrypoint, clean_environ, execute

SEED = 7

# --- the plan -------------------------------------------------------------------------------

HOSTILE: dict[str, tuple[list[int], Shape]] = {
    "one document": ([5], Shape(16)),
    "one document, two ranks": ([5], Shape(16, rows=2, world=2)),
    "fewer documents than ranks": ([3, 9, 4], Shape(16, rows=2, world=8)),
    "fewer documents than rows": ([3, 9, 4], Shape(16, rows=8)),
    "all equal": ([8] * 100, Shape(64, rows=3, world=2)),
    "none shares a row": ([60] * 10, Shape(64, rows=4, world=1)),
    "none shares a row, one row a batch": ([60] * 10, Shape(64, world=4)),
    "one longer than a row": ([5, 200, 7, 9], Shape(64)),
    "many short ones": ([1] * 1000, Shape(4096, documents=7)),
    "a row of no multiple": ([99, 98, 2, 1, 50, 49], Shape(99)),
    "an empty document": ([0, 0, 5], Shape(16)),
    "in order": ([5, 60, 7, 9, 64, 1], Shape(64, ordered=True)),
    "in order, unshuffled": ([5, 60, 7, 9, 64, 1] * 9, Shape(64, 2, 2, None, True, shuffled=False)),
    "in order, one longer than a row": ([5, 200, 7, 9], Shape(64, ordered=True, documents=2)),
}


def seen(batches: list[Batch]) -> Counter[int]:
    return Counter(document for batch in batches for row in batch for document in row)


def holds(made: Plan, lengths: list[int], shape: Shape) -> None:
    """What has to be true of every plan."""
    epochs = [made.deal(SEED, epoch) for epoch in range(3)]
    for batches in epochs:
        assert len(batches) == made.batches
        assert len(batches) % shape.world == 0
        counts = [len(batch) for batch in batches]
        assert 0 < min(counts) <= max(counts) <= shape.rows
        rows = [row for batch in batches for row in batch]
        assert all(0 < len(row) <= (shape.documents or shape.capacity) for row in rows)
        assert all(len(r) == 1 or sum(lengths[d] for d in r) <= shape.capacity for r in rows)
        times = seen(batches)
        assert set(times) == set(range(len(lengths)))
        # Twice only where a rank would have nothing to do.
        assert times.total() - len(lengths) < shape.world
        if len(lengths) >= shape.rows * shape.world and shape.rows > 1:
            assert times.total() == len(lengths)
    assert epochs[1] == plan(np.array(lengths), shape).deal(SEED, 1)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_plan_holds_for_hostile_lengths(name: str) -> None:
    lengths, shape = HOSTILE[name]
    holds(plan(np.array(lengths), shape), lengths, shape)


def test_a_plan_holds_for_drawn_lengths(dice: random.Random) -> None:
    for _ in range(300):
        capacity = dice.choice([16, 100, 1024])
        lengths = [dice.randint(1, capacity) for _ in range(dice.randint(1, 200))]
        shape = Shape(
            capacity, dice.randint(1, 5), dice.randint(1, 4), dice.choice([None, 1, 3]),
            ordered=dice.random() < 0.3, shuffled=dice.random() < 0.7,
        )  # fmt: skip
        holds(plan(np.array(lengths), shape), lengths, shape)


def chats(count: int = 20_000) -> Any:
    lengths = np.random.default_rng(SEED).lognormal(np.log(553), 0.8, count).astype(int)
    return np.clip(lengths, 4, 4096)


def test_rows_are_full_and_each_epoch_is_dealt_anew_on_every_number_of_ranks() -> None:
    lengths = chats()
    for world in (1, 2, 8):
        made = plan(lengths, Shape(4096, 4, world, 200))
        epochs = [made.deal(SEED, epoch) for epoch in range(3)]
        rows = sum(len(batch) for batch in epochs[0])
        assert lengths.sum() / (rows * 4096) > 0.99
        together = [{tuple(sorted(r)) for batch in e for r in batch if len(r) > 1} for e in epochs]
        for one, other in itertools.combinations(together, 2):
            assert len(one & other) < 0.2 * len(one)
        # What a rank has is not what it had.
        shares = [seen(batches[::world]) for batches in epochs]
        assert world == 1 or shares[0].keys() != shares[1].keys()
        assert made.deal(SEED, 0) != made.deal(SEED + 1, 0)


def test_what_is_to_stay_in_order_does() -> None:
    lengths = chats(2000)
    made = plan(lengths, Shape(4096, 4, 2, 200, ordered=True, shuffled=False))
    documents = [d for batch in made.deal(SEED, 0) for row in batch for d in row]
    assert documents == list(range(2000))
    assert made.deal(SEED, 0) == made.deal(SEED, 1)
    shuffled = plan(lengths, Shape(4096, 4, 2, 200, ordered=True))
    rows = [row for batch in shuffled.deal(SEED, 0) for row in batch]
    assert all(row == list(range(row[0], row[-1] + 1)) for row in rows)
    assert rows != [row for batch in shuffled.deal(SEED, 1) for row in batch]


def test_the_order_of_an_epoch_is_the_one_that_checkpoints_were_made_with() -> None:
    """With another one every packed run of before would be refused a resume, and rightly so."""
    made = plan(np.arange(1, 200) % 97 + 1, Shape(128, 2, 2, 200))
    assert made.digest(42)[:16] == "1bfb376583d468a8"


def test_a_changed_order_is_told_by_its_names() -> None:
    lengths = np.arange(1, 100)
    before = order.told(plan(lengths, Shape(128, 2, 1, 200)), lengths, 42, 4)
    assert order.differing(before, {**before, "numpy": "another"}) == ""
    now = order.told(plan(lengths, Shape(128, 2, 2, 200)), lengths, 43, 4)
    line = order.differing(before, now)
    assert line.startswith("processes: 1 -> 2, seed: 42 -> 43, order: ")
    longer = order.told(plan(lengths + 1, Shape(128, 2, 1, 200)), lengths + 1, 42, 4)
    assert order.differing(before, longer).startswith("their lengths: ")
    assert order.differing({}, now).startswith("it has no packing.json, ")
    assert order.differing(before, {}) == "its rows were packed and these are not"
    assert order.differing({}, {}) == ""


RANK = """
import sys, torch
from envtune.engine.packing import order
rank, place = int(sys.argv[1]), sys.argv[2]
torch.distributed.init_process_group("gloo", f"file://{place}", rank=rank, world_size=2)
order.compare_ranks({"documents": 5})
order.compare_ranks({"documents": 5 + rank})
"""


def test_ranks_that_hold_different_rows_all_end(tmp_path: Path) -> None:
    environ = clean_environ(GLOO_SOCKET_IFNAME="lo")
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "meeting")],
            env=environ, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for rank in ranks:
        said = rank.communicate(timeout=300)[1]
        assert "RanksDiffer: the ranks hold different rows: documents: 5 -> 6" in said


# --- a resume -------------------------------------------------------------------------------

PACKED = {
    "AXOLOTL_SAMPLE_PACKING": "true", "AXOLOTL_ATTN_IMPLEMENTATION": "sdpa",
    "AXOLOTL_VAL_SET_SIZE": "3", "AXOLOTL_EVAL_STEPS": "7", "AXOLOTL_SAVE_STEPS": "5",
    "AXOLOTL_MICRO_BATCH_SIZE": "2",
}  # fmt: skip


def test_other_batches_are_refused_a_resume_unless_the_user_says_so(
    settings: dict[str, str], tmp_path: Path, forking: dict[str, str]
) -> None:
    places = [tmp_path / name for name in ("first", "second")]
    for place in places:
        place.mkdir()
    packed = settings | forking | PACKED | {"AXOLOTL_NUM_EPOCHS": "1"}
    run = Entrypoint(places[0], packed).train()
    from_ = {"AXOLOTL_RESUME_FROM_CHECKPOINT": str(run / "checkpoints" / "checkpoint-10")}
    other = Entrypoint(places[1], packed | from_ | {"AXOLOTL_SAMPLE_PACKING_BIN_SIZE": "3"})
    result = other.run()
    assert result.code == 1
    assert "made with other batches" in result.err
    assert "sample_packing_bin_size: 200 -> 3, order: " in result.err
    assert "SFT_RESUME_FORCE=true" in result.err
    forced = other.run(SFT_RESUME_FORCE="true")
    assert forced.code == 0, forced.err[-3000:]


# --- packed against alone -------------------------------------------------------------------


def test_a_packed_document_has_the_loss_that_it_has_alone(
    embedded: Path, tmp_path: Path, seed: int
) -> None:
    """Every token is learned, and no first one from the end of another document."""
    words = [sys.executable, "-m", "tests.packed_alone", str(embedded), str(seed)]
    done = execute(words, tmp_path, clean_environ(PYTHONPATH=str(ROOT)))
    assert done.code == 0, done.err[-3000:]
    told = json.loads(done.out.splitlines()[-1])
    print(seed, told)
    assert told["documents"] == 301
    assert told["packed_labels"] == told["labels"]
    assert told["worst"] < 1e-6

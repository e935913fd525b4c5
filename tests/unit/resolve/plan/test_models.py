"""The memory and the time model against the runs that were recorded."""

import itertools
import statistics
from typing import Any

import pytest

from envtune.machine.pretended import PRETENDED
from envtune.resolve.plan import cards, memory, rows, shapes, time
from envtune.resolve.plan.cards import GIB
from tests.unit.resolve.plan.jobs import CARDS, CONFIGS, RECORDED, SHORT, choice, shape

H200 = CARDS["h200"]
MEMORY: list[dict[str, Any]] = RECORDED["memory"]
SPEED: list[dict[str, Any]] = RECORDED["speed"]


def predicted(run: dict[str, Any]) -> memory.Memory:
    return memory.of(shape(run["model"]), choice(run), H200)


def speed(run: dict[str, Any]) -> float:
    """Predicted real tokens a second; the runs accumulated four micro-steps."""
    made = choice(run)
    seconds = time.of_step(shape(run["model"]), made, H200, SHORT.seen, 4)
    return 4 * rows.FILLED * made.tokens / seconds


@pytest.mark.parametrize("run", MEMORY, ids=str)
def test_what_a_run_allocated_is_predicted_within_half_a_percent(run: dict[str, Any]) -> None:
    assert predicted(run).allocated / GIB == pytest.approx(run["allocated"], rel=0.005)


def test_what_the_native_allocator_reserved_is_never_two_percent_more_than_predicted() -> None:
    ratios = [predicted(r).reserved(choice(r)) / GIB / r["reserved"] for r in MEMORY]
    assert len(ratios) == 23
    assert min(ratios) >= 0.98
    assert statistics.median(abs(ratio - 1) for ratio in ratios) <= 0.01


@pytest.mark.parametrize("run", MEMORY, ids=str)
def test_what_was_trained_fits_its_card(run: dict[str, Any]) -> None:
    assert predicted(run).fits(H200)


@pytest.mark.parametrize("run", RECORDED["out_of_memory"], ids=str)
def test_what_ran_out_of_memory_does_not_fit(run: dict[str, Any]) -> None:
    assert not predicted(run).fits(H200)


@pytest.mark.parametrize("run", SPEED, ids=str)
def test_the_speed_of_a_recorded_run_is_predicted_within_eight_percent(run: dict[str, Any]) -> None:
    assert speed(run) == pytest.approx(run["tokens_per_second"], rel=0.08)


def test_of_two_runs_of_one_job_the_faster_is_predicted_to_be_the_faster() -> None:
    pairs = [
        (one, other)
        for one, other in itertools.combinations(SPEED, 2)
        if (one["model"], one["method"]) == (other["model"], other["method"])
    ]
    assert len(pairs) == 15
    for one, other in pairs:
        faster = one["tokens_per_second"] > other["tokens_per_second"]
        assert (speed(one) > speed(other)) == faster, (one, other)


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("1b", 1.236), ("3b", 3.213), ("8b", 8.030), ("q7", 7.616), ("q14", 14.770),
        ("70b", 70.554), ("30b-a3b", 30.532),
    ],
)  # fmt: skip
def test_the_parameters_of_a_model_are_those_of_its_card(model: str, billions: float) -> None:
    """As the models' pages say."""
    assert shape(model).parameters / 1e9 == pytest.approx(billions, rel=0.0005)


def test_parameters_that_no_term_explains_lie_there_too() -> None:
    plain = shape("1b")
    more = shapes.of(CONFIGS["1b"], plain.parameters + 1000)
    assert more is not None
    assert more.parameters == plain.parameters + 1000


@pytest.mark.parametrize("lost", ["hidden_size", "num_hidden_layers", "vocab_size"])
def test_a_config_that_does_not_tell_a_size_has_no_shape(lost: str) -> None:
    assert shapes.of({k: v for k, v in CONFIGS["1b"].items() if k != lost}) is None
    assert shapes.of({**CONFIGS["1b"], lost: "many"}) is None


def test_the_peaks_of_the_cards_are_those_of_dense_sums_in_32_bits() -> None:
    """Tables print several of them twice as high."""
    assert {name: (card.tflops, card.bandwidth) for name, card in CARDS.items()} == {
        "h200": (990, 4800), "h100": (990, 3350), "h100-pcie": (756, 2000),
        "a100-80": (312, 2039), "a100": (312, 1555), "l40s": (362, 864), "rtx4090": (165, 1008),
        "rtx3090": (71, 936), "t4": (65, 320), "b200": (2250, 7700), "rtx5090": (209, 1792),
        "a6000": (155, 768), "a10g": (70, 600), "a10": (125, 600), "l4": (121, 300),
    }  # fmt: skip


@pytest.mark.parametrize("name", PRETENDED)
def test_every_gpu_that_can_be_pretended_has_a_card(name: str) -> None:
    gpu = PRETENDED[name]
    card = cards.of(gpu)
    assert card.memory <= gpu.memory / GIB
    known = name in CARDS
    assert (card.name == name) == known
    assert card.error >= 0.05
    assert known or not card.calibrated
    assert cards.of(gpu).error >= (0.08 if card.calibrated else 0.25)


def test_rows_padded_to_the_longest_of_a_batch_are_as_full_as_was_measured() -> None:
    """49, 36 and 28 % for batches of 4, 8 and 16 short rows."""
    for batch, full in ((4, 0.49), (8, 0.36), (16, 0.28)):
        assert SHORT.mean / SHORT.padded(batch) == pytest.approx(full, abs=0.05)
    assert SHORT.padded(1) == pytest.approx(SHORT.mean)
    assert SHORT.mean == pytest.approx(300, rel=0.03)


@pytest.mark.parametrize(
    "changed",
    [{"recompute": memory.RECOMPUTE}, {"micro": 2}, {"sequence": 1024}, {"eight_bit_adam": True},
     {"method": "qlora"}],
    ids=str,
)  # fmt: skip
def test_each_way_to_save_memory_saves_some(changed: dict[str, Any]) -> None:
    from dataclasses import replace

    base = memory.Choice("full" if "eight_bit_adam" in changed else "lora", 4, 2048)
    whole = memory.of(shape("8b"), base, H200).allocated
    assert memory.of(shape("8b"), replace(base, **changed), H200).allocated < whole

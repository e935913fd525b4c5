"""What must not change what is learned does not: recomputed activations, how a batch is cut into
steps, how many processes share it; and every token that was prepared is trained in every epoch.

In float32 on the CPU, where the same sums give the same bits. `make drill-invariance` adds two
processes and packed rows to the sample that every test run does.
"""

import os
from pathlib import Path

import pytest

from tests.harness import Entrypoint, losses, read

DRILL = bool(os.environ.get("DRILL"))
drill = pytest.mark.skipif(not DRILL, reason="make drill-invariance")
TWO = {"NPROC": "2"}
PACKED = {"AXOLOTL_SAMPLE_PACKING": "true", "AXOLOTL_MICRO_BATCH_SIZE": "2"}


def furthest(run: Path, other: Path) -> float:
    """The largest relative difference between the losses of two runs, step for step."""
    pairs = list(zip(losses(run), losses(other), strict=True))
    assert all(one[0] == two[0] for one, two in pairs)
    return max(abs(one[1] - two[1]) / abs(two[1]) for one, two in pairs)


def test_recomputed_activations_change_no_bit(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    run = entrypoint.train(AXOLOTL_GRADIENT_CHECKPOINTING="true", **forking)
    assert read(run / "run.json")["resolved"]["axolotl"]["gradient_checkpointing"]["value"] is True
    print(f"gradient checkpointing: {furthest(run, lora):.1e}")
    assert losses(run) == losses(lora)


def test_a_batch_in_more_parts_is_the_same_batch(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    settings = {"AXOLOTL_MICRO_BATCH_SIZE": "4", "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "4"}
    run = entrypoint.train(**settings, **forking)
    print(f"accumulation 4 x 4 for 8 x 2: {furthest(run, lora):.1e}")
    assert furthest(run, lora) <= 2e-4


def trained_share(run: Path) -> float:
    """The tokens that were trained, of those that were prepared for all epochs."""
    stages = read(run / "run.json")["stages"]
    epochs = read(run / "run.json")["resolved"]["axolotl"]["num_epochs"]["value"]
    return float(stages["train"]["tokens"] / (epochs * stages["prepare"]["tokens"]["train"]))


def test_every_token_is_trained_in_every_epoch(lora: Path) -> None:
    assert trained_share(lora) == 1.0


@drill
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("packed", [False, True])
def test_every_token_is_trained_on_any_number_of_processes(
    ranks: int, packed: bool, entrypoint: Entrypoint
) -> None:
    run = entrypoint.train(**(TWO if ranks == 2 else {}), **(PACKED if packed else {}))
    assert read(run / "run.json")["stages"]["train"]["world_size"] == ranks
    share = trained_share(run)
    print(f"{'packed' if packed else 'unpacked'}, {ranks} processes: {share:.4%} of the tokens")
    assert share == 1.0

"""What must not change what is learned does not, in float32 on the CPU, where the same sums give
the same bits; and every token that was prepared is trained in every epoch.
"""

from pathlib import Path

from tests.harness import Entrypoint, losses, read


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


def trained_share(run: Path) -> float:
    """The tokens that were trained, of those that were prepared for all epochs."""
    stages = read(run / "run.json")["stages"]
    epochs = read(run / "run.json")["resolved"]["axolotl"]["num_epochs"]["value"]
    return float(stages["train"]["tokens"] / (epochs * stages["prepare"]["tokens"]["train"]))


def test_every_token_is_trained_in_every_epoch(lora: Path) -> None:
    assert trained_share(lora) == 1.0

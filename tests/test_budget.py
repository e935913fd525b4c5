"""A limit that is reached while a run trains: saved, told, counted over the starts."""

from envtune.artifacts import checkpoints
from tests.harness import Entrypoint, Result, metrics, read


def _step(entrypoint: Entrypoint) -> int:
    """The step of the newest checkpoint, 0 where there is none."""
    [run] = entrypoint.folder.glob("outputs/*-run*")
    newest = checkpoints.newest(run / "checkpoints")
    return int(newest.name.removeprefix("checkpoint-")) if newest else 0


def test_a_limit_saves_ends_with_7_and_counts_every_start(entrypoint: Entrypoint) -> None:
    """The first start is over before it trains; one that is too slow is followed by another."""
    many = {"AXOLOTL_NUM_EPOCHS": "200"}
    starts, step = 0, 0
    for seconds in (4, 60, 180, 420):
        limit = {"SFT_MAX_HOURS": str(seconds / 3600)}
        limited = entrypoint.run(**limit, **many)
        assert limited.code == 7, limited.err[-3000:]
        starts += 1
        if step := _step(entrypoint):
            break
    assert starts > 1
    _is_told(limited, f"step {step} of")
    [run] = entrypoint.folder.glob("outputs/*-run*")
    assert metrics(run)[-1]["step"] == step > 0
    assert read(run / "budget.json")["seconds"] >= seconds

    _is_told(entrypoint.run(**limit, **many), f"over {starts} starts; raise it to go on")
    assert not (run / ".complete").exists()


def _is_told(result: Result, text: str) -> None:
    assert result.code == 7, result.err[-3000:]
    assert "SFT_MAX_HOURS" in result.lines[-1]
    assert text in result.lines[-1]

"""A limit that is reached while a run trains: saved, told, counted over the starts."""

import time

from envtune import checkpoints
from tests.harness import Entrypoint, Result, metrics, read

# Seconds behind the first steps of a start, in which it can do some more.
_MORE = 6


def _step(entrypoint: Entrypoint) -> int:
    [run] = entrypoint.folder.glob("outputs/*/checkpoints")
    newest = checkpoints.newest(run)
    assert newest is not None
    return int(newest.name.removeprefix("checkpoint-"))


def test_a_limit_saves_ends_with_7_and_counts_every_start(entrypoint: Entrypoint) -> None:
    """The limit of the second start is measured by the first, so that it trains a little."""
    many = {"AXOLOTL_NUM_EPOCHS": "200"}
    began = time.monotonic()
    first = entrypoint.start(SFT_MAX_HOURS="1", **many)
    first.until_step(2)
    to_train = time.monotonic() - began
    first.signal()
    assert first.wait(60).code == 143
    run, before = first.only_run(), _step(entrypoint)
    spent = read(run / "budget.json")["seconds"]
    assert 0 < spent < time.monotonic() - began

    hours = str((spent + to_train + _MORE) / 3600)
    second = entrypoint.run(SFT_MAX_HOURS=hours, **many)
    _is_told(second, f"step {_step(entrypoint)} of")
    assert _step(entrypoint) > before
    assert metrics(run)[-1]["step"] == _step(entrypoint)

    _is_told(entrypoint.run(SFT_MAX_HOURS=hours, **many), "over 2 starts; raise it to go on")
    assert not (run / ".complete").exists()


def _is_told(result: Result, text: str) -> None:
    assert result.code == 7, result.err[-3000:]
    assert "SFT_MAX_HOURS" in result.lines[-1]
    assert text in result.lines[-1]

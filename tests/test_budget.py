"""A limit that is reached while a run trains: saved, told, counted over the starts."""

import time

from envtune import checkpoints
from tests.harness import Entrypoint, Result, metrics, read


def _step(entrypoint: Entrypoint) -> int:
    [run] = entrypoint.folder.glob("outputs/*/checkpoints")
    newest = checkpoints.newest(run)
    assert newest is not None
    return int(newest.name.removeprefix("checkpoint-"))


def test_a_limit_saves_ends_with_7_and_counts_every_start(entrypoint: Entrypoint) -> None:
    """The limit of the next start is measured by the first, so that it trains a little; one
    that was slower is followed by one that may take longer."""
    many = {"AXOLOTL_NUM_EPOCHS": "200"}
    began = time.monotonic()
    first = entrypoint.start(SFT_MAX_HOURS="1", **many)
    first.until_step(2)
    to_train = time.monotonic() - began
    first.signal()
    assert first.wait().code == 143
    run, before = first.only_run(), _step(entrypoint)
    spent = read(run / "budget.json")["seconds"]
    assert 0 < spent < time.monotonic() - began

    for starts in range(2, 9):
        spent = read(run / "budget.json")["seconds"]
        hours = str((spent + starts * to_train) / 3600)
        limited = entrypoint.run(SFT_MAX_HOURS=hours, **many)
        if _step(entrypoint) > before:
            break
    _is_told(limited, f"step {_step(entrypoint)} of")
    assert metrics(run)[-1]["step"] == _step(entrypoint) > before

    told = f"over {starts} starts; raise it to go on"
    _is_told(entrypoint.run(SFT_MAX_HOURS=hours, **many), told)
    assert not (run / ".complete").exists()


def _is_told(result: Result, text: str) -> None:
    assert result.code == 7, result.err[-3000:]
    assert "SFT_MAX_HOURS" in result.lines[-1]
    assert text in result.lines[-1]

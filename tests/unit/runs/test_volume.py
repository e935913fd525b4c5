"""A volume that fails for a moment ends no training."""

from pathlib import Path

import pytest

from envtune import channel
from envtune.channel import Outcome
from envtune.runs import lease
from envtune.runs.folders import Run
from envtune.stages.watcher import TrainWatcher
from envtune.supervise import nodes
from envtune.supervise.signals import StopSignals
from envtune.supervise.stage import Context
from tests.unit.builders import run_config


def test_an_account_that_cannot_be_read_is_the_last_one_that_could(tmp_path: Path) -> None:
    run = Run("tiny-run1", tmp_path, tmp_path / "logs", "key")
    watcher = TrainWatcher(Context(run, run_config(), {}, (), StopSignals()), "1:1")
    Outcome("1:1", "training", step=3, max_steps=9).write(tmp_path)
    watcher.tick()
    (tmp_path / channel.OUTCOME).unlink()
    (tmp_path / channel.OUTCOME).mkdir()  # reading it is an OSError, as on a stale mount
    assert not watcher.done()
    assert watcher.stop(), "what is trained would be ended unsaved"
    assert channel.stop_requested(tmp_path)


@pytest.mark.parametrize(
    ("looks", "lost"),
    [(["1:1"], False), (["", "1:1"], False), (["", ""], True), (["2:2", "2:2"], True)],
)
def test_node_0_is_gone_when_two_looks_say_so(
    looks: list[str], *, lost: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "holder", lambda folder: looks.pop(0))
    assert nodes.lost(tmp_path, nodes.Launch("1:1")) is lost

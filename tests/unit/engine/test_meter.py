"""What a training measures of itself, on steps whose tokens are known."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from envtune.engine.meter import Meter


class Steps:
    """A stand-in for the Trainer: takes a batch and learns nothing of it."""

    args = SimpleNamespace(world_size=2)

    def training_step(self, model: Any, inputs: Any) -> str:
        return "the loss"


def test_padding_is_the_share_of_slots_without_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([10.0, 12.0, 14.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    trainer = Steps()
    meter = Meter(trainer, tmp_path)
    meter.begin(100)  # of a start before
    for _ in range(2):
        assert trainer.training_step(None, {"input_ids": torch.ones(4, 25)}) == "the loss"
    told = {"tokens_per_second": 150.0, "padding": 0.25}  # 300 tokens of 2 ranks x 2 x 100 slots
    assert meter.since_last(400) == told
    assert meter.since_begin(400) == {**told, "tokens_per_second": 75.0}


def test_mfu_is_what_the_tokens_need_of_the_planned_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 2.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    (tmp_path / "config").mkdir()
    plan = {"flops_per_token": 4e9, "peak": 1e12}
    (tmp_path / "config" / "plan.json").write_text(json.dumps(plan))
    meter = Meter(Steps(), tmp_path)
    meter.begin(0)
    assert meter.since_last(100) == {"tokens_per_second": 50.0, "mfu": 0.2}

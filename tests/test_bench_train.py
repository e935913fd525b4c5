"""`make bench-train`: what it takes for a figure, what it counts, and the whole program on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench import train, train_job, train_meter, train_runs
from tests.harness import ROOT

GOOD = {
    "error": None, "loss": [2.0, 1.5], "grad_norm": 0.1, "tokens_per_second": 100.0, "mfu": None,
    "padding": 0.5, "allocated_gib": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    "fault",
    [{"loss": [2.0, 2.0]}, {"loss": [2.0, 2.5]}, {"grad_norm": 0.0}, {"error": "OOM"},
     {"loss": [float("nan"), 1.0]}],
)  # fmt: skip
def test_a_figure_counts_only_with_falling_loss_and_gradients(fault: dict[str, Any]) -> None:
    assert train_runs.counts(GOOD)
    assert not train_runs.counts({**GOOD, **fault})


def test_ratios_come_first_and_what_does_not_count_has_none() -> None:
    half = {**GOOD, "tokens_per_second": 50.0}
    lines = list(train.table({train.OURS: half, "dead": {**GOOD, "grad_norm": 0.0},
                              train.SWEEP: GOOD}))  # fmt: skip
    assert [line.split()[0] for line in lines] == ["ratio", "0.50", "-", "1.00"]


def test_the_sweep_on_a_gpu_has_at_least_24_configurations_of_one_global_batch() -> None:
    runs = list(train.grid(train_job.Job("m", "r", 2048, gpu=True)))
    keys = [json.dumps(run["keys"], sort_keys=True) for run in runs]
    assert len(set(keys)) == len({run["name"] for run in runs}) >= 24
    batches = {
        r["keys"]["micro_batch_size"] * r["keys"]["gradient_accumulation_steps"] for r in runs
    }
    assert len(batches) == 1


class _Model(torch.nn.Module):
    def __init__(self, *, lora: bool) -> None:
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(50, 8)
        self.q_proj = torch.nn.Linear(8, 8, bias=False)
        self.lm_head = torch.nn.Linear(8, 50, bias=False)
        if lora:
            self.lora_A = torch.nn.Linear(8, 2, bias=False)
        self.config = SimpleNamespace(
            num_hidden_layers=3, num_attention_heads=2, hidden_size=8, vocab_size=50,
            tie_word_embeddings=False,
        )  # fmt: skip


def test_flops_are_6n_in_full_and_4n_for_an_adapter_without_the_embedding() -> None:
    weights, attention = 64 + 400, 2 * 3 * 8 * 10.0
    assert train_meter.per_token(_Model(lora=False), 10) == 6 * weights + 3 * attention
    assert train_meter.per_token(_Model(lora=True), 10) == 4 * weights + 2 * attention + 6 * 16


def test_padding_is_no_token_and_packed_documents_are_told_apart() -> None:
    ids = torch.ones(2, 4, dtype=torch.long)
    padded = {"input_ids": ids, "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]])}
    assert train_meter._lengths(padded, 0).tolist() == [2, 3]
    places = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 0]])
    packed = {"input_ids": ids, "attention_mask": torch.ones(2, 4), "position_ids": places}
    assert [n for n in train_meter._lengths(packed, 0).tolist() if n] == [2, 2, 3, 1]


def test_a_rung_keeps_the_faster_half_and_the_last_one_is_the_longest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told: list[dict[str, Any]] = []

    def measured(job: Any, run: dict[str, Any], folder: Path) -> dict[str, Any]:
        speed = float(run["name"])
        return {**GOOD, "name": run["name"], "tokens_per_second": speed,
                "error": "OOM" if speed > 8 else None}  # fmt: skip

    monkeypatch.setattr(train_runs, "measure", measured)
    monkeypatch.setattr(train_runs, "tell", told.append)
    sweep = {"runs": [{"name": str(n)} for n in range(1, 10)], "steps": 3, "warm": 1, "left": 2,
             "longest": 15}  # fmt: skip
    job = train_job.Job("m", "r", 2048, gpu=True)
    train_runs.halve(job, sweep, tmp_path, float("inf"))
    rungs = {rung: [t["name"] for t in told if t["rung"] == rung] for rung in (3, 6, 15)}
    assert rungs == {3: [str(n) for n in range(1, 10)], 6: ["8", "7", "6", "5"], 15: ["8", "7"]}
    assert [t["name"] for t in told if t["last"]] == ["8", "7"]


@pytest.mark.skipif("DRILL" not in os.environ, reason="trains nine times: make drill-bench")
def test_the_whole_program_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "bench" / "train.py"), "--folder", str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert list(results)[:4] == [
        train.OURS, "Axolotl's defaults", "RunPod's pod", "TRL's SFTTrainer",
    ]  # fmt: skip
    assert all(train_runs.counts(told) for told in results.values()), results
    assert train.SWEEP in results, done.stdout

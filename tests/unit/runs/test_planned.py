"""report.json sets what was planned beside what was measured, and says when a speed is none."""

import json
from pathlib import Path
from typing import Any

import pytest

from envtune import files
from envtune.resolve.plan import choose, told
from envtune.runs import contents, record
from envtune.runs.folders import Run
from tests.unit.resolve.plan.jobs import job

_TRAINED = {
    "tokens": 90_000, "brought_tokens": 10_000, "training_seconds": 4.0, "world_size": 1,
    "step": 3, "padding": 0.1, "mfu": 0.4, "peak_allocated_bytes": 2**30,
    "peak_reserved_bytes": None, "seconds": 9.0,
}  # fmt: skip


def run(folder: Path, lines: list[dict[str, Any]]) -> Run:
    named = dict.fromkeys(("name", "prefix", "key", "logs"), "one")
    files.write_json(
        folder / contents.RECORD, {**named, "number": 1, "stages": {"train": _TRAINED}}
    )
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Run(folder.name, folder, folder, "")


def test_a_plan_stands_beside_what_was_measured(tmp_path: Path) -> None:
    planned = told.figures(choose.choose(job("1b", "lora", "h100")))
    (tmp_path / "config").mkdir()
    files.write_json(tmp_path / contents.PLAN, planned)
    found = record.report(run(tmp_path, []), 0)["plan"]
    assert found["allocated"] == {"planned": planned["memory"]["allocated"], "measured": 2**30}
    assert found["tokens_per_second"]["measured"] == 20_000
    assert found["steps"] == {"planned": planned["steps"], "measured": 3}


@pytest.mark.parametrize(
    ("losses", "norms", "counts"),
    [
        ((2.0, 1.0), (1.0, 0.5), True),
        ((1.0, 2.0), (1.0, 0.5), False),  # nothing was learned
        ((2.0, 1.0), (1.0, 0.0), False),  # and by no gradient nothing can be
        ((2.0,), (1.0,), False),
    ],
)
def test_a_speed_counts_where_the_loss_fell_by_gradients(
    tmp_path: Path, losses: tuple[float, ...], norms: tuple[float, ...], counts: bool
) -> None:
    lines = [
        {"step": n, "loss": loss, "grad_norm": norm, "seconds": float(n)}
        for n, (loss, norm) in enumerate(zip(losses, norms, strict=True), 1)
    ]
    found = record.report(run(tmp_path, lines), 0)
    assert found["speed_counts"] is counts
    assert found["plan"] is None
    assert (found["padding"], found["mfu"]) == (0.1, 0.4)

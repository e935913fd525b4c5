"""Axolotl takes what the planner chooses: its own validation, in a child, under pretended GPUs.

A sample of the cells in the suite; all of them with DRILL=1 (`make drill-plans`).
"""

import itertools
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from envtune.checks.axolotl_validation import capabilities
from envtune.machine.pretended import pretend
from envtune.resolve.config import RunConfig
from envtune.resolve.plan import rows
from tests.unit.resolve.plan.jobs import CONFIGS, SHORT
from tests.unit.resolve.plan.test_planning import configured

_SAMPLE = 12
_GPUS = (
    "t4", "l4", "rtx3090", "rtx4090", "l40s", "a100-80", "h100", "h200", "b200", "t4x2", "h100x8",
    "l40sx4",
)  # fmt: skip
_METHODS = ("lora", "qlora", "null", None)
_LONG = rows.of([300] * 80 + [7400] * 20, 20_000, "told")
# What a user sets beside a model and data; the plan is made around it.
_SET: tuple[dict[str, str], ...] = (
    {},
    {"AXOLOTL_VAL_SET_SIZE": "0.05", "AXOLOTL_EVALS_PER_EPOCH": "2"},
    {"AXOLOTL_CUT_CROSS_ENTROPY": "false", "AXOLOTL_CHUNKED_CROSS_ENTROPY": "true"},
    {"AXOLOTL_SAMPLE_PACKING": "false"},
    {"AXOLOTL_GRADIENT_CHECKPOINTING": "true", "AXOLOTL_MICRO_BATCH_SIZE": "1"},
    {"AXOLOTL_TORCH_COMPILE": "true"},
    {"AXOLOTL_LIGER_ROPE": "true"},
    {"AXOLOTL_EVAL_TABLE_SIZE": "2"},
    {"AXOLOTL_OPTIMIZER": "adamw_8bit"},
    {"AXOLOTL_BATCH_SIZE": "32"},
    {"AXOLOTL_TILED_MLP": "true"},
)


def cells() -> list[tuple[str, str, rows.Lengths, dict[str, str]]]:
    """Machine, model, rows and settings of each cell that fits."""
    one = itertools.product(_GPUS, CONFIGS, (SHORT, _LONG), _METHODS)
    found = [(gpu, model, how, _adapter(method)) for gpu, model, how, method in one]
    return found + [("h100x2", "8b", SHORT, more) for more in _SET]


def _adapter(method: str | None) -> dict[str, str]:
    return {} if method is None else {"AXOLOTL_ADAPTER": method}


def planned() -> list[tuple[str, RunConfig]]:
    made = []
    for gpu, model, how, more in cells():
        config = configured(gpu, model, how, **more)
        if config.plan is not None and config.plan.fits:
            made.append((gpu, config))
    return made


def test_axolotl_takes_what_is_planned(tmp_path: Path, seed: int) -> None:
    found = planned()
    distinct = {json.dumps(config.plain(), sort_keys=True, default=str) for _, config in found}
    assert len(found) >= 300
    assert len(distinct) >= 40
    set_, rest = found[-len(_SET) :], found[: -len(_SET)]
    if not os.environ.get("DRILL"):
        rest = random.Random(seed).sample(rest, _SAMPLE)
    asked = [question(gpu, config) for gpu, config in [*rest, *set_]]
    verdicts = _asked(asked, tmp_path)
    wrong = {
        json.dumps(config, default=str): verdict["problems"]
        for (config, _), verdict in zip(asked, verdicts, strict=True)
        if verdict["problems"]
    }
    print(f"{len(found)} plans, {len(distinct)} configurations, {len(asked)} asked")
    assert not wrong, f"TEST_SEED={seed}"


def question(gpu: str, config: RunConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    return config.plain(), capabilities(config, pretend(gpu))


def _asked(questions: list[Any], folder: Path) -> list[dict[str, Any]]:
    (folder / "questions").write_text(json.dumps(questions, default=str))
    command = [sys.executable, "-m", "tests.many_configurations", "questions", "answers"]
    environ = {**os.environ, "PYTHONPATH": str(Path.cwd()), "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, cwd=folder, env=environ, capture_output=True)
    answers: list[dict[str, Any]] = json.loads((folder / "answers").read_text())
    return answers

"""`envtune plan` as a user calls it, for models of real sizes whose weights are a hole."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import shaped_models
from tests.harness import clean_environ
from tests.unit.resolve.plan.jobs import CONFIGS, shape

_ROW = {
    "instruction": "Which number comes after 8?",
    "input": "",
    "output": "After 8 comes 9. " * 20,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in ("1b", "70b"):
        tokenizer = embedded / "tiny-llama"
        shaped_models.write(folder / name, CONFIGS[name], shape(name).parameters, tokenizer)
    (folder / "rows.jsonl").write_text("".join(json.dumps(_ROW) + "\n" for _ in range(900)))
    return folder


def call(models: Path, model: str, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environ = clean_environ(
        AXOLOTL_BASE_MODEL=str(models / model),
        AXOLOTL_DATASETS=json.dumps([{"path": str(models / "rows.jsonl"), "type": "alpaca"}]),
        SFT_OUTPUTS_DIR=str(models / "outputs"),
        SFT_LOGS_DIR=str(models / "logs"),
        **more,
    )
    command = [sys.executable, "-X", "importtime", "-m", "envtune", *words]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def test_a_plan_is_told_for_people_and_for_programs_without_torch(models: Path) -> None:
    told = call(models, "1b", "plan", SFT_PRETEND_GPU="h100", SFT_USD_PER_HOUR="2.5")
    assert told.returncode == 0, told.stderr[-2000:]
    lines = told.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert any(line.startswith("model") and "1.24 billion" in line for line in lines)
    assert any(line.startswith("price") and "$" in line for line in lines)
    assert "torch" not in {line.rsplit("|", 1)[-1].strip() for line in told.stderr.splitlines()}
    figures = json.loads(call(models, "1b", "plan", "--json", SFT_PRETEND_GPU="h100").stdout)
    assert figures["model"]["parameters"] == shape("1b").parameters
    assert figures["rows"] == pytest.approx(900, rel=0.1)
    assert figures["fits"] is True
    assert figures["usd"] is None
    assert (
        figures["memory"]["allocated"] < figures["memory"]["needed"] < figures["machine"]["bytes"]
    )


def test_a_check_shows_the_plan_and_refuses_what_does_not_fit(models: Path) -> None:
    fits = call(models, "1b", "check", SFT_PRETEND_GPU="t4x2")
    assert fits.returncode == 0, fits.stderr[-2000:]
    assert "plan: LoRA on" in fits.stdout
    refused = call(models, "70b", "check", SFT_PRETEND_GPU="t4")
    assert refused.returncode == 5
    assert "does not fit one T4" in refused.stderr
    assert "what fits: " in refused.stderr


def test_the_cards_that_hold_a_job_are_listed_where_there_is_no_gpu(models: Path) -> None:
    told = call(models, "70b", "plan", "--fits", "--usd", "h200=3", SFT_DEVICE="auto")
    assert told.returncode == 0, told.stderr[-2000:]
    assert max(map(len, told.stdout.splitlines())) <= 90
    [row] = [line for line in told.stdout.splitlines() if "x h200" in line]
    assert "$" in row
    assert not any("x t4" in line for line in told.stdout.splitlines() if "1 x t4" in line)
    wrong = call(models, "70b", "plan", "--fits", "--usd", "h200=much", SFT_DEVICE="auto")
    assert wrong.returncode == 1
    assert "--usd: 'h200=much' is not allowed" in wrong.stderr


def test_without_a_gpu_a_plan_says_how_to_get_one(models: Path) -> None:
    told = call(models, "1b", "plan", SFT_DEVICE="cpu")
    assert told.returncode == 1
    assert "SFT_PRETEND_GPU: is not set and there is no GPU here" in told.stderr

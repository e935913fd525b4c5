"""The control plane starts at once: nothing heavy is imported for a wrong variable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.builders import write_model

HEAVY = {"torch", "transformers", "axolotl", "vllm", "numpy", "datasets"}


def python(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """A fresh Python that sees no variable of the caller's but PATH."""
    env = {"PATH": os.environ["PATH"], **environ}
    return subprocess.run(
        [sys.executable, *arguments], env=env, capture_output=True, text=True, check=False
    )


def check(cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`envtune check` under -X importtime, which lists every import on stderr."""
    return python("-X", "importtime", "-m", "envtune", "check", SFT_OUTPUTS_DIR=str(cwd), **environ)


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rsplit("|", 1)[1].strip().split(".")[0] for line in lines}


def told(done: subprocess.CompletedProcess[str]) -> str:
    return "\n".join(li for li in done.stderr.splitlines() if not li.startswith("import time:"))


def test_a_wrong_name_ends_with_1_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    done = check(tmp_path, AXOLOTL_LERNING_RATE="1", AXOLOTL_LORA_R="x")
    assert done.returncode == 1
    assert "AXOLOTL_LEARNING_RATE" in told(done)
    assert "AXOLOTL_LORA_R" in told(done)
    assert "Traceback" not in done.stderr
    assert "envtune" in imported(done)
    assert not HEAVY & imported(done)


def test_a_valid_configuration_is_checked_without_an_engine_too(tmp_path: Path) -> None:
    write_model(tmp_path / "tiny")
    (tmp_path / "rows.jsonl").write_text('{"text": "a"}\n')
    done = check(
        tmp_path,
        AXOLOTL_BASE_MODEL=str(tmp_path / "tiny"),
        AXOLOTL_DATASETS__0__PATH=str(tmp_path / "rows.jsonl"),
        SFT_DEVICE="cpu",
    )
    assert done.returncode == 0, told(done)
    assert "learning_rate" in done.stdout
    assert not (HEAVY | {"huggingface_hub", "httpx"}) & imported(done)


@pytest.mark.parametrize("level", ["loud", ""])
def test_a_log_level_that_does_not_exist_is_no_traceback(tmp_path: Path, level: str) -> None:
    done = check(tmp_path, SFT_LOG_LEVEL=level)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_a_secret_in_the_wrong_variable_is_not_shown(tmp_path: Path) -> None:
    done = check(tmp_path, HF_TOKEN="hf_plant", AXOLOTL_LORA_R="hf_plant")
    assert done.returncode == 1
    assert "hf_plant" not in done.stdout + done.stderr


def test_the_last_word_goes_to_the_termination_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    check(tmp_path, AXOLOTL_LORA_R="x", TERMINATION_LOG_FILE=str(log))
    assert "AXOLOTL_LORA_R" in log.read_text()

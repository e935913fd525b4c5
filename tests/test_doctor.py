"""`envtune doctor` from end to end, as somebody types it."""

import json
from pathlib import Path

import pytest

from envtune.checks.doctor.table import CODES
from tests.harness import NOWHERE, Entrypoint

SECRET = "hf_PlantedPlanted0123456789"


def test_a_machine_with_nothing_set_is_looked_at_in_80_columns(tmp_path: Path) -> None:
    told = Entrypoint(tmp_path).run("envtune", "doctor")
    assert told.code == 0, told.out + told.err
    assert max(map(len, told.out.splitlines())) <= 80
    assert "gloo: 2 processes added up" in told.out
    assert "no problems, " in told.out.splitlines()[-1]
    assert "Traceback" not in told.out + told.err
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_that_is_wrong_in_many_ways_is_told_as_json(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"instruction": "a", "output": "b"}\n{"instruction": \n')
    wrong = {
        **settings,
        "AXOLOTL_DATASETS__0__PATH": str(rows),
        "AXOLOTL_DATASETS__0__TYPE": "alpaca",
        "HF_HUB_OFFLINE": "",
        "SFT_PUSH_TO": "ada/mine",
        "HF_TOKEN": SECRET,
        "HF_ENDPOINT": NOWHERE,
        "HTTPS_PROXY": f"http://ada:{SECRET}@127.0.0.1:9",
        "TERMINATION_LOG_FILE": str(tmp_path / "last"),
    }
    told = Entrypoint(tmp_path, wrong).run("envtune", "doctor", "--json", "SFT_DEVICE=cuda")
    seen = json.loads(told.out)
    found = {one["code"] for one in seen["checks"] if one["code"]}
    assert {"D-GPU-01", "D-DAT-01", "D-HUB-01", "D-PRX-01", "D-HUB-04"} <= found
    assert told.code == seen["exit"] == CODES["D-GPU-01"].exit
    assert all(one["fix"] and one["evidence"] for one in seen["checks"] if one["code"])
    assert SECRET not in told.out + told.err + (tmp_path / "last").read_text()
    assert (tmp_path / "last").read_text().startswith("envtune doctor found D-GPU-01, ")


def test_a_stop_while_processes_add_up_leaves_none(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the engines are not here")
    start = Entrypoint(tmp_path).start("envtune", "doctor")
    start.until(lambda: sum(b"allreduce" in words for words in start.commands().values()) == 2)
    start.signal()
    assert start.wait().code == 143
    assert start.gone()

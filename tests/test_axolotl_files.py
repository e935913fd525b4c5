"""Configurations in Axolotl's own words are taken whole: as variables, file, base64 and template
alike, for one GPU and for eight, and what is written is what Axolotl takes."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.examples import MACHINES, WAYS, capabilities, environs, made
from envtune.checks import axolotl_validation
from envtune.errors import Refused
from envtune.machine.pretended import pretend
from envtune.settings import passed_over
from tests.axolotl_files import CONFIGURATIONS
from tests.harness import ROOT, clean_environ

Answers = dict[tuple[str, str], list[dict[str, Any]]]
# Of what a file says, what becomes of it is envtune's to decide and is told.
_TOLD = ("output_dir", "dataset_prepared_path", "plugins", "save_total_limit", "fsdp_config")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the files lie, and the one of DeepSpeed's that two of them name."""
    place = tmp_path_factory.mktemp("files")
    for name, keys in CONFIGURATIONS.items():
        (place / f"{name}.yaml").write_text(yaml.safe_dump(keys, sort_keys=False))
    zero = {"zero_optimization": {"stage": 2}, "train_micro_batch_size_per_gpu": "auto"}
    (place / "zero.json").write_text(json.dumps(zero))
    return place


@pytest.fixture(scope="module")
def written(folder: Path) -> dict[tuple[str, str, str], dict[str, Any] | str]:
    """What is written of each file in each way for each machine, or why it is not."""
    found: dict[tuple[str, str, str], dict[str, Any] | str] = {}
    there = {"SFT_OUTPUTS_DIR": str(folder / "out"), "SFT_LOGS_DIR": str(folder / "logs")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, keys in CONFIGURATIONS.items():
            ways = zip(WAYS, environs(folder / f"{name}.yaml", keys), strict=True)
            for way, environ in ways:
                for machine in MACHINES:
                    found[name, way, machine] = _made(environ | there, machine)
    return found


def _made(environ: dict[str, str], machine: str) -> dict[str, Any] | str:
    try:
        config = made(environ, machine)
    except Refused as refused:
        return "\n".join(map(str, refused.problems))
    plain: dict[str, Any] = json.loads(json.dumps(config.plain()))
    there = axolotl_validation.capabilities(config, pretend(machine))
    return {"plain": plain, "machine": there}


@pytest.fixture(scope="module")
def axolotl(folder: Path, written: dict[Any, Any]) -> Answers:
    """What Axolotl says of each file as it is, and of what is written of it, from one child."""
    kept = [k for k in written if k[1] == "file" and isinstance(written[k], dict)]
    asked = [[keys, capabilities("h100")] for keys in CONFIGURATIONS.values()]
    asked += [[written[key]["plain"], written[key]["machine"]] for key in kept]
    (folder / "questions").write_text(json.dumps(asked))
    command = [sys.executable, "-m", "tests.many_configurations", "questions", "answers"]
    environ = clean_environ(AXOLOTL_DO_NOT_TRACK="1", HF_HUB_OFFLINE="1", PYTHONPATH=str(ROOT))
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told = iter(json.loads((folder / "answers").read_text()))
    original = {(name, "as it is"): next(told)["problems"] for name in CONFIGURATIONS}
    return original | {(name, machine): next(told)["problems"] for name, _, machine in kept}


def test_there_are_sixty_and_axolotl_takes_each(axolotl: Answers) -> None:
    assert len(CONFIGURATIONS) >= 60
    refused = {name: said for (name, what), said in axolotl.items() if what == "as it is" and said}
    assert not refused


def test_each_is_taken_in_every_way_on_every_machine(written: dict[Any, Any]) -> None:
    assert not {key: said for key, said in written.items() if isinstance(said, str)}


def test_every_way_writes_the_same(written: dict[Any, Any]) -> None:
    """But for an empty `adapter`, which no variable can say: null does."""
    differ = [
        (name, way, machine)
        for (name, way, machine), made_ in written.items()
        if made_["plain"] != written[name, "file", machine]["plain"]
    ]
    assert not differ


def test_what_is_written_is_what_axolotl_takes(axolotl: Answers) -> None:
    assert not {key: said for key, said in axolotl.items() if key[1] != "as it is" and said}


def test_what_a_file_says_is_what_is_written(written: dict[Any, Any]) -> None:
    changed = [
        (name, key, value, written[name, "file", "h100"]["plain"].get(key))
        for name, keys in CONFIGURATIONS.items()
        for key, value in keys.items()
        if value is not None
        and key not in _TOLD
        and not _same(key, value, written[name, "file", "h100"]["plain"])
    ]
    assert not changed


def _same(key: str, value: Any, plain: dict[str, Any]) -> bool:
    """Whether a value is there; old words stand for today's, and what is off may be left out."""
    if key in passed_over.OURS or key in passed_over.DROPPED:
        return key not in plain or key == "dataset_prepared_path"
    if key == "flash_attention":
        return bool(plain["attn_implementation"] == "flash_attention_2")
    if key == "deepspeed":
        return Path(plain[key]).name == value
    return bool(plain.get(key) == value or (not value and key not in plain))

"""Files of other tools whole, by each door: the same values, and Axolotl's own word on them."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from envtune.checks import axolotl_validation
from envtune.machine.pretended import pretend
from envtune.resolve.rules import resolve
from envtune.settings import given, sources
from envtune.settings.typed import Settings
from tests.harness import ROOT, clean_environ
from tests.replay.documents import FILES, TRAINERS, Document
from tests.replay.doors import (
    FILE,
    by_base64,
    by_file,
    by_json,
    by_template,
    by_variables,
    found,
    settings,
)
from tests.unit.builders import make_facts

pytestmark = pytest.mark.usefixtures("factory")

# Axolotl reads AXOLOTL_DATASET_NUM_PROC itself.
RESERVED = {"dataset_num_proc"}


@pytest.mark.parametrize("door", [by_json, by_base64, by_template, by_variables])
@pytest.mark.parametrize("name", FILES)
def test_a_file_means_the_same_by_every_door(
    name: str, door: Callable[[Document, Path], Settings], tmp_path: Path
) -> None:
    meant = found(by_file(FILES[name], tmp_path))
    left_out = RESERVED if door is by_variables else set()
    assert found(door(FILES[name], tmp_path)) == {
        key: value for key, value in meant.items() if key not in left_out
    }


@pytest.mark.parametrize("name", TRAINERS)
def test_the_trainers_flags_mean_the_same_as_variables(name: str, tmp_path: Path) -> None:
    flags = {f"SFT_{flag.upper()}": sources.as_text(v) for flag, v in FILES[name].items()}
    assert found(settings(**flags)) == found(by_file(FILES[name], tmp_path))


def asked(document: Document, folder: Path) -> Iterator[tuple[Document, Document]]:
    """A file's YAML for one and for eight H100, and what Axolotl is told of them."""
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    read = sources.read(environ={FILE: str(folder / "config.yaml")})
    typed = given.settings(sources.with_documents(read))
    rows = len(typed.axolotl["datasets"].value) if "datasets" in typed.axolotl else 0
    for name in ("h100", "h100x8"):
        machine = pretend(name)
        facts = make_facts(machine, (("messages",),) * rows, test_columns=(("messages",),))
        config = resolve(typed, facts)
        plain = json.loads(json.dumps(config.plain()))
        yield plain, axolotl_validation.capabilities(config, machine)


def test_axolotl_itself_takes_every_file_for_one_and_for_eight_gpus(tmp_path: Path) -> None:
    whole = {name: d for name, d in FILES.items() if name != "industrial training"}
    questions = [one for document in whole.values() for one in asked(document, tmp_path)]
    (tmp_path / "questions").write_text(json.dumps(questions))
    command = [sys.executable, "-m", "tests.many_configurations", "questions", "answers"]
    environ = clean_environ(AXOLOTL_DO_NOT_TRACK="1", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = [name for name in whole for _ in range(2)]
    answers = json.loads((tmp_path / "answers").read_text())
    assert not [
        (name, answer["problems"])
        for name, answer in zip(names, answers, strict=True)
        if answer["problems"]
    ]

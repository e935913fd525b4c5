"""The workflows of .github: their form, their pins and what they may do."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.harness import ROOT

BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
CHECKED = [(file, "github-workflows") for file in WORKFLOWS]
CHECKED.append((ROOT / ".github" / "dependabot.yml", "dependabot"))


@pytest.mark.parametrize(("file", "schema"), CHECKED, ids=[file.stem for file, _ in CHECKED])
def test_the_form_is_what_github_reads(file: Path, schema: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}"]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", WORKFLOWS, ids=[file.stem for file in WORKFLOWS])
def test_every_action_is_pinned_and_every_permission_is_asked_for(file: Path) -> None:
    text = file.read_text()
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert not [u for u in used if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v[\d.]+", u)]
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    assert all(job["permissions"] and job["timeout-minutes"] for job in workflow["jobs"].values())


def test_an_auditor_finds_nothing() -> None:
    command = [BIN / "zizmor", "--offline", "--no-progress", ROOT / ".github"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", WORKFLOWS, ids=[file.stem for file in WORKFLOWS])
def test_the_scripts_of_the_steps_are_shell(file: Path) -> None:
    jobs = yaml.safe_load(file.read_text())["jobs"].values()
    scripts = [step["run"] for job in jobs for step in job["steps"] if "run" in step]
    assert scripts
    for script in scripts:
        done = subprocess.run(
            [BIN / "shellcheck", "--shell=bash", "-"],
            input=script, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_what_the_workflows_make_are_targets_that_are_there() -> None:
    made = {t for file in WORKFLOWS for t in re.findall(r"make ([a-z-]+)", file.read_text())}
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert made <= targets, made

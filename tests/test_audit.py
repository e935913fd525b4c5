"""scripts/audit.py: what is told of a package with an advisory, and of what cannot be asked."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests import locks
from tests.harness import ROOT


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WANTED = {"engine": ["Torch==2.13.0", "numpy<2,>=1.26"], "other": ["numpy>=1"], "loose": ["numpy"]}
ROWS = [
    ("numpy", ["2.1.0"], "bound by engine (numpy<2,>=1.26)"),
    ("numpy", ["1.27.1", "2.1.0"], "bound by nothing that is installed here"),
    ("torch", ["2.13.1"], "bound by engine (Torch==2.13.0)"),
    ("torch", [], "mended in no version; bound by nothing that is installed here"),
]


@pytest.mark.parametrize(("name", "mended", "said"), ROWS)
def test_an_advisory_is_told_with_what_binds_the_pin(
    audit: Any, name: str, mended: list[str], said: str
) -> None:
    vulns = [{"id": "PYSEC-1", "fix_versions": mended}]
    told = [{"name": name.upper(), "version": "1", "vulns": vulns}, {"name": "fine", "vulns": []}]
    (line,) = audit.lines("requirements.txt", told, WANTED)
    assert line.startswith(f"requirements.txt: {name} 1: PYSEC-1: ")
    assert said in line


def test_what_could_not_be_asked_is_one_line(audit: Any) -> None:
    told = [{"name": f"p{n}", "skip_reason": "not found"} for n in range(5)]
    (line,) = audit.lines("requirements.txt", told, {})
    wanted = "requirements.txt: 5 of 5 packages not audited (p0, p1, p2, ...): not found"
    assert line == wanted


def test_what_this_environment_binds_is_read(audit: Any) -> None:
    held = audit.binding("torch", ["999"], {"axolotl": audit.installed()["axolotl"]})
    assert held
    assert held[0].startswith("axolotl (torch")


def test_a_service_that_does_not_answer_is_told(tmp_path: Path) -> None:
    """pip-audit is not in this environment: a stand-in says what it says without a network."""
    tool = tmp_path / "pip-audit"
    tool.write_text("#!/bin/sh\necho 'ERROR: could not connect' >&2; exit 1\n")
    tool.chmod(0o755)
    (tmp_path / "python").symlink_to(sys.executable)
    code = f"import sys; sys.executable = {str(tmp_path / 'python')!r}; sys.argv = ['audit.py', 'requirements.txt']; "
    code += f"exec(compile(open({str(ROOT / 'scripts/audit.py')!r}).read(), {str(ROOT / 'scripts/audit.py')!r}, 'exec'))"
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            f"__name__ = '__main__'; __file__ = {str(ROOT / 'scripts/audit.py')!r}; {code}",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 1
    assert (
        told.stderr.strip()
        == "requirements.txt: no advisory service answers: ERROR: could not connect"
    )


# --- the table of docs/security.md -----------------------------------------------------------

TABLE = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in (ROOT / "docs" / "security.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith("| pin ")
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row[0])
def test_a_known_vulnerability_is_of_what_the_lock_pins(row: list[str]) -> None:
    """A pin that has moved takes its row with it, and so does one that is not bound any more."""
    pin, lock, _, mended, bound, _ = row
    name, version = pin.split()
    assert locks.pins(lock.strip("`"))[name] == f"{name}=={version}"
    fixed = re.match(r"\d[\d.]*\d", mended)
    pinned = {
        value for file in ROOT.glob("requirements*.txt") for value in locks.pins(file.name).values()
    }
    held = re.findall(r"([\w-]+) ([\d.]+) \(`([^`]+)`\)", bound)
    assert held or not fixed
    for binder, its, line in held:
        asked = Requirement(line)
        assert f"{binder}=={its}" in pinned
        assert asked.name == name
        assert version in asked.specifier
        assert not fixed or fixed[0] not in asked.specifier

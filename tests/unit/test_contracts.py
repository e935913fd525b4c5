"""A planted breach of each contract in pyproject.toml fails `make check`, which names it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness import ROOT

# Module -> the lines that are put below its own, or a module of its own.
PLANTS = {
    "machine/ports.py": "from envtune.runs import naming",
    "columns.py": "from envtune.machine import ports",
    "attic/__init__.py": "",
    "settings/own/setting.py": "def _():\n    import datetime\n    import shutil",
    "resolve/batch.py": "def _():\n    import torch",
    "resolve/saving.py": "import os\nNAME = os.environ['NAME']\nopen(NAME)",
    "render/launch.py": "import glob",
    "runs/naming.py": "from envtune.runs import record",
    "runs/record.py": "from envtune.runs import naming",
    "runs/lease.py": "import multiprocessing\nimport requests",
    "artifacts/selection.py": "import subprocess\nimport numpy",
    "supervise/budget.py": "import os\nos.fork()\nos.execv('a', [])\nos.getenv('NAME')",
    "supervise/nodes.py": "from subprocess import run",
    "cli/welcome.py": "from envtune.engine import rows",
}
CONTRACTS = {
    "A room imports only from rooms below it": (
        "envtune.machine.ports -> envtune.runs.naming",
        "envtune.columns -> envtune.machine.ports",
        "envtune.attic",
    ),
    "No modules or packages side by side import each other in a circle": (
        "No cycles are allowed in envtune.runs.",
    ),
    "Only engine imports torch and what comes with it": ("envtune.resolve.batch -> torch",),
    "What needs the engines runs in a child: no module outside of engine imports it": (
        "envtune.cli.welcome -> envtune.engine.rows",
    ),
    "Only supervise.process starts processes": (
        "envtune.artifacts.selection -> subprocess",
        "envtune.runs.lease -> multiprocessing",
    ),
    "Settings, resolve and render know no clock and no chance": (
        "envtune.settings.own.setting -> datetime",
    ),
    "Settings, resolve and render read the disk in their readers alone": (
        "envtune.settings.own.setting -> shutil",
        "envtune.resolve.saving -> os",
        "envtune.render.launch -> glob",
    ),
}
BANNED = [
    "resolve/saving.py TID251 `os.environ`",
    "resolve/saving.py PTH123",
    "supervise/budget.py TID251 `os.fork`",
    "supervise/budget.py TID251 `os.getenv`",
    "supervise/budget.py S606",
    "supervise/nodes.py TID251 `subprocess.run`",
    "artifacts/selection.py TID253 `numpy`",
]


class Verdict(NamedTuple):
    code: int
    text: str


class Tree(NamedTuple):
    """A copy of what `make check` looks at, with all of the plants in it."""

    root: Path

    def says(self, tool: str, *arguments: str) -> Verdict:
        environ = {**os.environ, "PYTHONPATH": str(self.root / "src"), "COLUMNS": "200"}
        command = [str(Path(sys.executable).with_name(tool)), *arguments]
        done = subprocess.run(
            command, cwd=self.root, env=environ, capture_output=True, text=True, check=False
        )
        return Verdict(done.returncode, done.stdout + done.stderr)


def plant(package: Path, plants: Mapping[str, str]) -> None:
    for name, lines in plants.items():
        path = package / name
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as stream:
            stream.write(f"\n{lines}\n")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    root = tmp_path_factory.mktemp("planted")
    (root / "scripts").mkdir()
    for name in ("pyproject.toml", "scripts/imports.py"):
        shutil.copy(ROOT / name, root / name)
    uncompiled = shutil.ignore_patterns("__pycache__", "*.json")
    shutil.copytree(ROOT / "src/envtune", root / "src/envtune", ignore=uncompiled)
    plant(root / "src/envtune", PLANTS)
    return Tree(root)


@pytest.fixture(scope="module")
def linted(tree: Tree) -> Verdict:
    return tree.says("lint-imports", "--no-logo", "--no-cache")


@pytest.fixture(scope="module")
def ruffed(tree: Tree) -> Verdict:
    return tree.says("ruff", "check", "--no-cache", "--output-format", "concise", "src")


def section(text: str, name: str) -> str:
    """What lint-imports says of one broken contract, from its underlined name to the next."""
    return re.split(r"\n\S[^\n]*\n-+\n", text.split(f"\n{name}\n--", 1)[1], maxsplit=1)[0]


@pytest.mark.parametrize("name", CONTRACTS)
def test_lint_imports_names_the_contract_and_its_breach(linted: Verdict, name: str) -> None:
    assert linted.code == 1
    assert re.search(rf"^{re.escape(name)} BROKEN", linted.text, re.MULTILINE), linted.text
    for breach in CONTRACTS[name]:
        assert breach in section(linted.text, name)


def test_every_contract_has_a_breach(linted: Verdict) -> None:
    assert set(re.findall(r"^(.+) (?:KEPT|BROKEN)\b", linted.text, re.MULTILINE)) == set(CONTRACTS)


@pytest.mark.parametrize("breach", BANNED)
def test_ruff_names_what_a_module_may_not_call(ruffed: Verdict, breach: str) -> None:
    assert ruffed.code == 1
    module, rest = breach.split(" ", 1)
    lines = [line for line in ruffed.text.splitlines() if f"envtune/{module}:" in line]
    assert any(rest in line for line in lines), lines


def test_imports_that_run_up_and_circles_are_counted(tree: Tree) -> None:
    code, text = tree.says("python", "scripts/imports.py")
    assert code == 1
    assert re.search(
        r"^in a circle: .*envtune\.runs\.naming, envtune\.runs\.record", text, re.MULTILINE
    )
    assert "runs up: envtune.machine.ports -> envtune.runs.naming" in text
    assert re.search(r"\d+ modules, \d+ imports of each other, \d+ circles, \d+ that run up", text)


def test_a_package_that_no_lock_promises_is_a_missing_dependency(tree: Tree) -> None:
    code, text = tree.says("deptry", "--no-ansi", "src")
    assert code == 1
    assert re.search(r"runs/lease\.py:.* 'requests' imported but", text)


def test_a_dependency_that_nothing_imports_is_told(tree: Tree, tmp_path: Path) -> None:
    text = (tree.root / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace('"tqdm"]', '"tqdm", "einops"]'))
    (tmp_path / "src").symlink_to(tree.root / "src")
    code, told = Tree(tmp_path).says("deptry", "--no-ansi", "src")
    assert code == 1
    assert "DEP002 'einops' defined as a dependency but not used" in told

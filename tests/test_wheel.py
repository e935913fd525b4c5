"""The wheel as `pip install envtune` puts it on a laptop: the control plane, without an engine."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from envtune.cli.verbs import VERBS
from tests.harness import ROOT, Result, clean_environ, execute

UV = Path(sys.executable).with_name("uv")
MINE = f"{sys.version_info.major}.{sys.version_info.minor}"
NO_ENGINE = "needs Axolotl, which is not installed here: the wheel checks, explains and configures"


def _uv(*words: object, **more: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    environ |= more
    command = [str(UV), *map(str, words)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of the sources alone: nothing that lies in the checkout beside them counts."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for name in ("src", "templates"):
        shutil.copytree(ROOT / name, sources / name)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    constraint = ("--build-constraints", ROOT / "requirements-build.txt", "--require-hashes")
    done = _uv("build", "--wheel", *constraint, "--out-dir", folder, sources)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("envtune-*-py3-none-any.whl")
    return made


@pytest.fixture(scope="module", params=["3.11", "3.12", "3.13"])
def laptop(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of the commands of a new environment that has the wheel and what it asks for."""
    version = request.param
    folder = tmp_path_factory.mktemp("laptop") / "venv"
    named = f"{sys.base_prefix}/bin/python{version}" if version == MINE else version
    made = _uv("venv", "--no-python-downloads", "--python", named, folder, PYENV_VERSION=version)
    if made.returncode:
        pytest.skip(f"no Python {version} is here: {made.stderr.strip().splitlines()[-1]}")
    done = _uv("pip", "install", "--python", folder, wheel)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


@pytest.fixture
def ask(laptop: Path, embedded: Path, tmp_path: Path) -> "Asking":
    (tmp_path / "demo").symlink_to(embedded)
    return Asking(laptop, tmp_path)


class Asking:
    """`envtune` of a laptop, with the demo's variables."""

    def __init__(self, laptop: Path, folder: Path) -> None:
        self.laptop, self.folder = laptop, folder

    def __call__(self, *words: str, **settings: str) -> Result:
        lines = (ROOT / "examples" / "demo.env").read_text().splitlines()
        demo = dict(line.split("=", 1) for line in lines if "=" in line and line[0] != "#")
        environ = clean_environ(**{**demo, **settings})
        return execute([str(self.laptop / "envtune"), *words], self.folder, environ)


def test_a_laptop_checks_explains_and_configures(ask: Asking) -> None:
    checked = ask("check", SFT_PRETEND_GPU="h100x8", SFT_DEVICE="auto")
    assert (checked.code, "the configuration is valid" in checked.err) == (0, True), checked.err
    wrong = ask("check", AXOLOTL_LEARNIN_RATE="1", AXOLOTL_BF16="maybe")
    assert wrong.code == 1
    assert len(wrong.said) == 2
    told = ask("explain", "learning_rate")
    assert "AXOLOTL_LEARNING_RATE" in told.out
    made = ask("configure", "--output", "config.yaml")
    assert made.code == 0, made.err
    assert "learning_rate: 0.005" in (ask.folder / "config.yaml").read_text()
    template = ask("configure", "--template", str(_template(ask.folder)), "--output", "made.yaml")
    assert (template.code, (ask.folder / "made.yaml").read_text()[:10]) == (0, "base_model"), (
        template
    )
    folder = Path(ask("configure").out.strip())
    assert (folder / "config" / "axolotl.yaml").exists()


def _template(folder: Path) -> Path:
    """A Jinja template, which a child lays out."""
    file = folder / "mine.yaml.j2"
    file.write_text("{% for k, v in values.items() %}{{ k | plain }}: {{ v.value }}\n{% endfor %}")
    return file


ENGINES = [
    ("run",),
    ("export",),
    ("quantise",),
    ("parity",),
    ("evaluate",),
    ("check", "--deep"),
    ("smoke-ddp",),
]
OTHERS = {
    ("publish",): (1, "there is no run below"),
    ("serve",): (1, "there is no run below"),
    ("smoke-test",): (1, "there is no run below"),
    ("chat",): (1, "there is no run below"),
    ("report",): (1, "there is no run below"),
    ("watch",): (1, "there is no run below"),
    ("status",): (0, "no run yet"),
    ("doctor",): (None, "docs/troubleshooting.md"),
    ("plan",): (1, "name one to plan for"),
    ("health",): (0, "no run yet"),
    ("welcome",): (0, "next: envtune check && envtune run"),
    ("login",): (0, "W&B: off"),
    ("runs",): (0, "no run"),
    ("prepare",): (0, "wrote"),
    ("convert", "demo/instructions.jsonl", "rows.jsonl"): (0, "wrote 301 rows"),
    ("validate", "demo/instructions.jsonl"): (0, "301 rows: 301 as messages"),
    ("finish", "3"): (3, ""),
    ("run-name-preview",): (0, "tiny-llama-instructions"),
    ("print-runtime",): (0, "RUN_NAME"),
    ("copy", "file:///nowhere/at/all", "data"): (4, "/nowhere/at/all"),
    ("copy", "s3://bucket/rows", "data"): (1, "s3fs, which reaches it, is not installed here"),
    ("copy", "gs://bucket/rows", "data"): (1, "gcsfs, which reaches it, is not installed here"),
    ("check", "SFT_PUSH_TO=s3://bucket/runs"): (None, "s3://bucket"),
    ("--version",): (0, "envtune"),
    ("--help",): (0, "print-runtime"),
}


def test_what_needs_an_engine_says_so_in_one_line(ask: Asking) -> None:
    for words in ENGINES:
        told = ask(*words)
        assert (told.code, len(told.said), told.out) == (1, 1, ""), (words, told)
        assert told.said[0].startswith(f"envtune {' '.join(words)}: {NO_ENGINE}")
    assert not [path for path in ask.folder.iterdir() if path.name != "demo"]


def test_the_other_verbs_work_as_everywhere(ask: Asking) -> None:
    for words, (code, said) in OTHERS.items():
        told = ask(*words)
        assert said in told.out + told.err, (words, told)
        assert told.code == code or (code is None and told.code in (0, 1, 4)), (words, told)
        assert "Traceback" not in told.err


def test_no_verb_is_left_out() -> None:
    told = {words[0] for words in (*ENGINES, *OTHERS, ("explain",), ("configure",))}
    assert VERBS.keys() <= told


def test_the_wheel_says_for_which_pythons_it_is(wheel: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert wheel.stat().st_size < 2**20

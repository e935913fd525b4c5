"""A whole training that finds the disk full, at any write or by its size: nothing is damaged, the
path and the bytes are told with exit 200, and after space came the result has the same bytes."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest

from envtune.errors import Exit
from tests import forks
from tests.full_disk import FullDisk
from tests.harness import Entrypoint, contents, losses

DRILL = os.environ.get("DRILL")
SAMPLE = 1
# Every so many writes, of which a seed draws the first: 1 is each of them.
STRIDE = int(os.environ.get("STRIDE") or 1)
SIZES = 12
SHORT = {
    "AXOLOTL_MAX_STEPS": "6",
    "AXOLOTL_SAVE_STEPS": "2",
    "AXOLOTL_VAL_SET_SIZE": "0",
    "SFT_EVALUATE": "off",
}


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> FullDisk:
    folder = tmp_path_factory.mktemp("disk")
    return FullDisk(folder, folder.parent / "full")


@pytest.fixture(scope="module")
def forking(
    tmp_path_factory: pytest.TempPathFactory, disk: FullDisk
) -> Iterator[Mapping[str, str]]:
    """Trainings fork from a process that the full disk reaches too."""
    with forks.server(tmp_path_factory.mktemp("forks"), more=disk.environ) as environ:
        yield environ


def result(run: Path) -> dict[str, object]:
    """What a run is for: its weights, its losses, and the newest checkpoint's state."""
    made = {
        name: data
        for name, data in contents(run / "adapter").items()
        if name.endswith((".safetensors", ".json"))
    }
    return {**made, "losses": losses(run)}


def litter(folder: Path) -> list[str]:
    return [str(p) for p in folder.rglob(".*") if re.search(r"\.[0-9a-f]{8}$", p.name)]


def told_well(line: str, outputs: Path, *, sized: bool) -> bool:
    """The path, and the bytes that are free."""
    return str(outputs) in line and (not sized or re.search(r"[\d,]+ (bytes|are) free", line))


def test_a_training_whose_disk_is_full_at_any_write_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    disk: FullDisk,
    forking: Mapping[str, str],
    dice: Random,
) -> None:
    folder = disk.under
    start = Entrypoint(folder, {**settings, **SHORT, **forking})

    def begin(number: int, *, stays: bool = False) -> tuple[int, str, str]:
        word = folder.parent / "termination"
        done = start.run(**disk.at(number, stays=stays), TERMINATION_LOG_FILE=str(word))
        return done.code, word.read_text(), done.err

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    clear()
    code, _, err = begin(0)
    assert code == 0, err[-3000:]
    writes, whole = disk.seen, result(next(folder.glob("outputs/*/run.json")).parent)
    numbers = range(1 + dice.randrange(STRIDE), writes + 1, STRIDE)
    failed = named = 0
    for number in numbers if DRILL else dice.sample(range(1, writes + 1), SAMPLE):
        clear()
        stays = bool(dice.getrandbits(1))
        code, line, err = begin(number, stays=stays)
        where = f"write {number} of {writes}, stays: {stays}, code {code}: {line}\n{err[-3000:]}"
        assert code in (0, Exit.DISK), where  # 0: what may fail, such as a log
        failed += bool(code)
        named += bool(code) and bool(told_well(line, folder, sized=True))
        if code:
            print(f"{number}: {line}")
        assert not litter(folder), where
        code, line, err = begin(0)
        assert code == 0, f"{where}\nthen {code}: {line}\n{err[-3000:]}"
        assert result(next(folder.glob("outputs/*/run.json")).parent) == whole, where
    print(f"{writes} writes, {len(numbers) if DRILL else SAMPLE} tried, {failed} ended with 200, "
          f"{named} of them with path and bytes")  # fmt: skip
    assert named == failed


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """An empty folder on a volume of its own."""
    folder = tmp_path / "volume"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here: it takes root and CAP_SYS_ADMIN")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def resize(folder: Path, size: int) -> None:
    options = f"remount,size={size}"
    subprocess.run(["mount", "-o", options, str(folder)], check=True)


def used(folder: Path) -> int:
    told = os.statvfs(folder)
    return (told.f_blocks - told.f_bfree) * told.f_frsize


@pytest.mark.skipif(not DRILL, reason="the long form of the test above: make drill-disks")
def test_a_training_on_a_volume_that_is_too_small_ends_well_once_it_is_larger(
    tmpfs: Path,
    settings: dict[str, str],
    tmp_path: Path,
    disk: FullDisk,
    forking: Mapping[str, str],
) -> None:
    word = tmp_path / "termination"
    start = Entrypoint(tmpfs, {**settings, **SHORT, **forking, "TERMINATION_LOG_FILE": str(word)})
    disk.at(0)
    resize(tmpfs, 1 << 30)
    done = start.run()
    assert done.code == 0, done.err[-3000:]
    most, whole = used(tmpfs), result(next(tmpfs.glob("outputs/*/run.json")).parent)
    sizes = [int(most * share / (SIZES + 1)) for share in range(1, SIZES + 1)]
    failed = 0
    for size in sizes:
        for path in tmpfs.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        resize(tmpfs, size)
        done = start.run()
        where = f"{size:,} of {most:,} bytes: {done.code} {word.read_text()}\n{done.err[-3000:]}"
        assert done.code in (0, Exit.DISK), where
        failed += bool(done.code)
        if done.code:
            print(f"{size:,} bytes: {word.read_text()}")
            assert told_well(word.read_text(), tmpfs, sized=True), where
        assert not litter(tmpfs), where
        resize(tmpfs, 1 << 30)
        done = start.run()
        assert done.code == 0, f"{where}\nthen {done.code}\n{done.err[-3000:]}"
        assert result(next(tmpfs.glob("outputs/*/run.json")).parent) == whole, where
    print(f"{len(sizes)} sizes below {most:,} bytes, {failed} ended with 200")

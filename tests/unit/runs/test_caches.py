"""Prepared rows in the caches, of which those that nobody uses are freed."""

import fcntl
import os
from pathlib import Path

import pytest

from envtune import files
from envtune.runs import caches
from envtune.runs.folders import Run

DAY = 86_400.0
NOW = 100 * DAY


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, Path]:
    """Rows that were used at some day of a hundred, told by their lock or by themselves."""
    made = {}
    for name, day, lock in (("old", 60, 61), ("used", 5, 99), ("new", 99, None), ("named", 3, 4)):
        made[name] = entry = tmp_path / caches.FOLDER / name
        entry.mkdir(parents=True)
        (entry / "data.arrow").write_text("rows")
        if lock is not None:
            path = entry.with_name(f".{name}.lock")
            path.touch()
            os.utime(path, (lock * DAY, lock * DAY))
        os.utime(entry, (day * DAY, day * DAY))
    return made


def run(folder: Path, entry: Path, *, finished: bool) -> Run:
    (folder / "data").mkdir(parents=True)
    files.write_json(folder / "data" / "prepared.json", {"folder": str(entry)})
    if finished:
        (folder / ".complete").touch()
    return Run(folder.name, folder, folder / "logs", "key")


def test_only_what_no_start_has_used_for_a_month_is_freed(
    tmp_path: Path, entries: dict[str, Path]
) -> None:
    going = run(tmp_path / "going", entries["named"], finished=False)
    assert caches.unused(tmp_path, [going], NOW) == [entries["old"]]
    done = run(tmp_path / "done", entries["named"], finished=True)
    assert caches.unused(tmp_path, [done], NOW) == [entries["named"], entries["old"]]
    assert not caches.unused(tmp_path / "nowhere", [], NOW)


def test_what_a_killed_preparation_left_goes_too(tmp_path: Path, entries: dict[str, Path]) -> None:
    left = tmp_path / caches.FOLDER / ".other.partial"
    left.mkdir()
    os.utime(left, (DAY, DAY))
    assert left in caches.unused(tmp_path, [], NOW)
    assert caches.free(left, NOW)
    assert not left.exists()


def test_what_a_start_prepares_or_has_asked_for_meanwhile_stays(
    tmp_path: Path, entries: dict[str, Path]
) -> None:
    old = entries["old"]
    lock = tmp_path / caches.FOLDER / ".old.lock"
    with lock.open() as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert not caches.free(old, NOW)
    os.utime(lock, (99 * DAY, 99 * DAY))
    assert not caches.free(old, NOW)
    assert (old / "data.arrow").exists()
    os.utime(lock, (DAY, DAY))
    assert caches.free(old, NOW)
    assert not old.exists()

"""What a training will run out of is told once, before it does."""

from pathlib import Path

import pytest

from envtune import files
from envtune.channel import Outcome
from envtune.machine import hardware
from envtune.supervise.shortage import Shortage

GIB = 2**30


def looks(folder: Path, outcome: Outcome | None, times: int = 3) -> list[str]:
    """What is told in so many looks, eleven seconds apart."""
    now = iter(range(11, 11 * (4 * times + 2), 11))
    shortage = Shortage(folder, lambda: float(next(now)))
    return [line for _ in range(times) for line in shortage.look(outcome)]


def test_checkpoints_that_will_not_fit_are_told_once_with_path_and_bytes(tmp_path: Path) -> None:
    outcome = Outcome(state="training", checkpoint_bytes=10**16, bytes_to_come=4 * 10**16)
    [line] = looks(tmp_path, outcome)
    assert str(tmp_path) in line
    assert f"{4 * 10**16:,} bytes more" in line
    assert "are free" in line


def test_a_disk_with_room_is_not_spoken_of(tmp_path: Path) -> None:
    assert looks(tmp_path, Outcome(state="training", checkpoint_bytes=1, bytes_to_come=1)) == []
    assert looks(tmp_path, None) == []


@pytest.mark.parametrize(
    ("file", "stat"),
    [
        ("memory.stat", "anon {}\nfile 99999999999\nshmem 1024\n"),
        ("memory/memory.stat", "cache 9\ntotal_cache 99999999999\ntotal_rss {}\ntotal_shmem 1024\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("share", "told"), [(0.5, 0), (0.95, 1)])
def test_memory_near_the_containers_limit_is_told_and_pages_of_files_do_not_count(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    file: str,
    stat: str,
    share: float,
    told: int,
) -> None:
    limit = "memory.max" if file == "memory.stat" else "memory/memory.limit_in_bytes"
    (tmp_path / "memory").mkdir()
    (tmp_path / limit).write_text(str(GIB))
    (tmp_path / file).write_text(stat.format(int(share * GIB)))
    monkeypatch.setattr(hardware, "_CGROUP", tmp_path)
    assert hardware.memory_used() == (int(share * GIB) + 1024, GIB)
    assert len(looks(tmp_path, None)) == told


def test_free_bytes_are_those_of_the_nearest_folder_that_is_there(tmp_path: Path) -> None:
    there, below = files.free(tmp_path), files.free(tmp_path / "none" / "deeper")
    assert there is not None and below is not None
    assert abs(there - below) < 2**30

"""`envtune prepare` and `envtune convert`, killed at any moment or with a disk that is full at any
write: nothing half-written has a name, and the next start ends with the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from envtune.errors import Exit
from tests import rows_made
from tests.full_disk import FullDisk
from tests.harness import clean_environ

DRILL = bool(os.environ.get("DRILL"))
KILLS = 40 if DRILL else 3
SAMPLE = 4
VERBS = {
    "prepare": ["prepare"],
    "convert": ["convert", "rows.jsonl", "made/rows.jsonl"],
}  # fmt: skip


class Work:
    """Starts of one verb in a folder; what it makes lies in `made`."""

    def __init__(self, folder: Path, verb: str, dice: random.Random) -> None:
        self.folder, self.made = folder, folder / "made"
        rows = [{"input": "", **row} for row in rows_made.instructions(dice, 400)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.command = [sys.executable, "-m", "envtune", *VERBS[verb]]
        self.settings = {
            "AXOLOTL_DATASETS": json.dumps([{"path": "rows.jsonl", "type": "alpaca"}]),
            "SFT_PREPARED_DIR": "made", "AXOLOTL_VAL_SET_SIZE": "0.1", "AXOLOTL_SEED": "5",
            "AXOLOTL_DATASET_EXACT_DEDUPLICATION": "true",
        }  # fmt: skip
        self.clear()

    def clear(self) -> None:
        shutil.rmtree(self.made, ignore_errors=True)
        self.made.mkdir()

    def begin(self, **more: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command, cwd=self.folder, env=clean_environ(**self.settings, **more),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, **more: str) -> tuple[int, str]:
        child = self.begin(**more)
        said = child.communicate(timeout=300)[1]
        return child.returncode, said

    def named(self) -> dict[str, bytes]:
        """What a person sees."""
        seen = [path for path in sorted(self.made.iterdir()) if not path.name.startswith(".")]
        return {path.name: path.read_bytes() for path in seen}

    def result(self) -> dict[str, bytes]:
        assert [path.name for path in self.made.glob(".*")] == []
        return self.named()


@pytest.fixture(params=VERBS)
def work(request: pytest.FixtureRequest, tmp_path: Path, dice: random.Random) -> Work:
    return Work(tmp_path, request.param, dice)


def is_part(seen: dict[str, bytes], whole: dict[str, bytes]) -> bool:
    return all(whole.get(name) == content for name, content in seen.items())


def test_a_kill_at_any_moment_leaves_whole_files_and_the_next_start_ends_with_the_same_bytes(
    work: Work, dice: random.Random
) -> None:
    work.start()
    work.clear()
    begun = time.monotonic()
    code, said = work.start()
    assert code == 0, said
    length, whole = time.monotonic() - begun, work.result()
    killed = ended = 0
    while killed < KILLS:
        work.clear()
        child = work.begin()
        time.sleep(dice.uniform(0.1, 1.0) * length)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        assert is_part(work.named(), whole)
        if child.returncode == 0:
            ended += 1
            assert ended <= 10 * KILLS
            continue
        killed += 1
        if work.named() != whole:  # else it was over, and convert replaces nothing
            code, said = work.start()
            assert code == 0, said
        assert work.named() == whole
    print(f"{killed} kills; {ended} more came after the end")


def test_a_disk_full_at_any_write_is_told_and_the_next_start_ends_with_the_same_bytes(
    work: Work, dice: random.Random
) -> None:
    disk = FullDisk(work.folder / "disk", work.made)
    code, said = work.start(**disk.at(0))
    assert code == 0, said
    whole, writes = work.result(), disk.seen
    assert writes >= SAMPLE
    numbers = list(range(1, writes + 1))
    for number in numbers if DRILL else dice.sample(numbers, SAMPLE):
        stays = bool(dice.getrandbits(1))
        work.clear()
        code, said = work.start(**disk.at(number, stays=stays))
        where = f"write {number} of {writes}, stays: {stays}: {said}"
        assert code == Exit.DISK, where
        assert "No space left" in said, where
        assert "Traceback" not in said, where
        assert is_part(work.named(), whole), where
        code, said = work.start()
        assert code == 0, where + said
        assert work.result() == whole, where
    print(f"{writes} writes")

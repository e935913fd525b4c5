"""A preparation that is killed, or finds the disk full at any write, ends with the same bytes at
the next start, and what is damaged is made anew."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from envtune.errors import Exit
from tests import rows_made
from tests.full_disk import FullDisk
from tests.harness import clean_environ, read

DRILL = bool(os.environ.get("DRILL"))
KILLS = 40 if DRILL else 4
SAMPLE = 6


class Preparation:
    """Starts of one order, as the stage gives it."""

    def __init__(self, folder: Path, model: Path, dice: Random) -> None:
        rows = [*rows_made.instructions(dice, 120), {"instruction": "no answer"}]
        data = folder / "rows.jsonl"
        data.write_text("".join(json.dumps({"input": "", **row}) + "\n" for row in rows))
        item = {"path": str(data), "ds_type": "json", "type": "alpaca"}
        self.place = folder / "place"
        self.order = folder / "order.json"
        config = {
            "base_model": str(model), "datasets": [item], "seed": 11, "sequence_len": 400,
            "val_set_size": 0.1, "dataset_num_proc": 2,
        }  # fmt: skip
        told = {
            "config": config, "tokenizer": str(model), "settings": {}, "ray": None, "cores": 2,
            "sets": {"train": [{"item": item, "files": [str(data)], "untyped": False}]},
            "asked": False, "save": False, "drops": True, "beyond": "", "content": "rows",
            "run": str(self.place / "run"), "caches": str(self.place / "tokenizers"),
            "out": str(self.place / "prepared"), "result": str(self.place / "run" / "prepared.json"),
        }  # fmt: skip
        self.order.write_text(json.dumps(told))
        self.clear()

    def clear(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        (self.place / "run").mkdir(parents=True)

    def begin(self, **more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "envtune.engine.data.prepare", str(self.order)]
        return subprocess.Popen(
            command, env=clean_environ(**more), stderr=subprocess.PIPE, text=True, start_new_session=True
        )  # fmt: skip

    def start(self, **more: str) -> tuple[int, str]:
        child = self.begin(**more)
        said = child.communicate(timeout=120)[1]
        return child.returncode, said

    @property
    def entry(self) -> Path:
        return Path(read(self.place / "run" / "prepared.json")["folder"])

    def result(self) -> dict[str, Any]:
        """All that a preparation leaves but the time, the lock and what it says of a hit."""
        told = {
            str(path.relative_to(self.place)): path.read_bytes()
            for path in sorted(self.place.rglob("*"))
            if path.is_file() and path.name not in ("manifest.json", "prepared.json")
        }
        left = read(self.place / "run" / "prepared.json")
        manifest = {
            k: v for k, v in read(self.entry / "manifest.json").items() if k != "created_at"
        }
        return {**told, "manifest": manifest, "left": [left["dropped"], left["required"]]}


@pytest.fixture
def preparation(tmp_path: Path, embedded: Path, dice: Random) -> Preparation:
    return Preparation(tmp_path, embedded / "tiny-llama", dice)


def test_a_preparation_killed_at_any_moment_is_finished_by_the_next_start(
    preparation: Preparation, dice: Random
) -> None:
    preparation.start()
    preparation.clear()
    begun = time.monotonic()
    assert preparation.start()[0] == 0
    length, whole = time.monotonic() - begun, preparation.result()
    killed = ended = 0
    while killed < KILLS:
        preparation.clear()
        child = preparation.begin()
        time.sleep(dice.uniform(0.02, 0.98) * length)
        with suppress(ProcessLookupError):
            (os.killpg if killed % 2 else os.kill)(child.pid, signal.SIGKILL)
        if child.wait() == 0:
            ended += 1
            assert ended <= 2 * KILLS
            continue
        killed += 1
        code, said = preparation.start()
        assert code == 0, said
        assert preparation.result() == whole
    print(f"{killed} kills; {ended} more came after the end")


def test_a_disk_that_is_full_at_any_write_is_told_and_the_next_start_finishes(
    preparation: Preparation, tmp_path: Path, dice: Random
) -> None:
    disk = FullDisk(tmp_path / "disk", preparation.place)
    assert preparation.start(**disk.at(0))[0] == 0
    whole, writes = preparation.result(), disk.seen
    assert writes > SAMPLE
    numbers = list(range(1, writes + 1))
    told = 0
    for number in numbers if DRILL else dice.sample(numbers, SAMPLE):
        stays = bool(dice.getrandbits(1))
        preparation.clear()
        code, said = preparation.start(**disk.at(number, stays=stays))
        where = f"write {number} of {writes}, stays: {stays}: {said}"
        assert code in (0, Exit.DISK), where  # 0: what may fail, as a cache of the tokenizer
        if code:
            told += 1
            assert "Traceback" not in said, where
            assert "No space left" in said, where
            assert str(preparation.place) in said, where
        litter = [p.name for p in preparation.place.rglob(".*") if not p.name.endswith(".lock")]
        assert litter == [], where
        code, said = preparation.start()
        assert code == 0, where + said
        assert preparation.result() == whole, where
    print(f"{writes} writes, {told} told")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("manifest.json", ""), ("manifest.json", '{"splits": {}}'), ("manifest.json", "[]"),
        ("manifest.json", '{"splits": []}'), ("train/state.json", "{"), ("eval/dataset_info.json", None),
    ],
)  # fmt: skip
def test_an_entry_whose_descriptions_are_damaged_is_made_anew(
    preparation: Preparation, name: str, content: str | None
) -> None:
    assert preparation.start()[0] == 0
    whole, path = preparation.result(), preparation.entry / name
    path.unlink() if content is None else path.write_text(content)
    code, said = preparation.start()
    assert code == 0, said
    assert "damaged" in read(preparation.place / "run" / "prepared.json")["because"]
    assert preparation.result() == whole


def test_a_start_that_waits_for_another_says_so_ends_at_once_and_then_hits(
    preparation: Preparation,
) -> None:
    assert preparation.start()[0] == 0
    (lock,) = (preparation.place / "prepared").glob("*.lock")
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for stopped in (True, False):
            child = preparation.begin()
            assert child.stderr is not None
            assert "waiting for another start" in child.stderr.readline()
            if stopped:
                child.terminate()
                assert child.wait(timeout=5) == -signal.SIGTERM
        held.close()
    assert child.wait(timeout=60) == 0
    assert read(preparation.place / "run" / "prepared.json")["hit"]


def test_two_preparations_of_the_same_rows_at_one_moment_end_with_the_same_bytes(
    preparation: Preparation, dice: Random
) -> None:
    assert preparation.start()[0] == 0
    whole = preparation.result()
    preparation.clear()
    first = preparation.begin()
    time.sleep(dice.uniform(0, 0.3))
    second = preparation.begin()
    said = [child.communicate(timeout=240)[1] for child in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], said
    assert preparation.result() == whole

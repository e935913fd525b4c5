"""Whoever makes the ids, one process, several or Ray's, makes the same bytes."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

from envtune.data.batches import BadRow
from envtune.engine.data import making, processes, tokenised
from envtune.errors import Exit, Refused
from tests import rows_made
from tests.test_prepared import item, read, write

Files = dict[str, bytes]


@pytest.fixture
def config(embedded: Path, tmp_path: Path, dice: Random) -> dict[str, Any]:
    """Rows of three kinds, some hundred of each."""
    chats, texts = rows_made.conversations(dice, 400), rows_made.instructions(dice, 900)
    return {
        "base_model": str(embedded / "tiny-llama"), "sequence_len": 400, "seed": 3, "val_set_size": 0.1,
        "datasets": [
            item(write(tmp_path / "rows.jsonl", [{"input": "", **row} for row in texts])),
            item(write(tmp_path / "chats.jsonl", chats), type="chat_template", chat_template="chatml"),
            item(write(tmp_path / "texts.jsonl", [{"text": r["output"]} for r in texts]), type="completion"),
        ],
    }  # fmt: skip


def prepared(config: dict[str, Any], folder: Path, **more: Any) -> Files:
    """The shards that are made, by their names."""
    rows = {"train": [read(Path(one["path"]), one) for one in config["datasets"]]}
    wanted = tokenised.Wanted(config, Path(config["base_model"]), rows, **more)
    made = Path(tokenised.prepare(wanted, folder)["folder"])
    found = {str(p.relative_to(made)): p.read_bytes() for p in sorted(made.rglob("*.arrow"))}
    assert found
    return found


@pytest.fixture
def alone(config: dict[str, Any], tmp_path: Path) -> Files:
    return prepared(config | {"dataset_num_proc": 1}, tmp_path / "alone")


@pytest.mark.parametrize("workers", [2, 3])
def test_several_processes_make_the_same_bytes_and_are_gone_afterwards(
    config: dict[str, Any], tmp_path: Path, alone: Files, workers: int
) -> None:
    before = set(psutil.Process().children())
    assert prepared(config | {"dataset_num_proc": workers}, tmp_path / "several") == alone
    assert set(psutil.Process().children()) <= before


def test_hugging_faces_library_is_asked_by_several_too(
    config: dict[str, Any], tmp_path: Path, alone: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[bool] = []
    task = making.Maker.task
    monkeypatch.setattr(
        making.Maker, "task", lambda *of: (made := task(*of), handed.append(bool(made)))[0]
    )
    several = config | {"dataset_num_proc": 2}
    assert prepared(several, tmp_path / "slow", slow="asked for") == alone
    assert sum(handed) > len(handed) / 2


def test_they_join_by_themselves_where_it_takes_long(
    config: dict[str, Any], tmp_path: Path, alone: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    begin = processes.Processes._begun
    monkeypatch.setattr(processes, "_PATIENCE", 0.01)
    monkeypatch.setattr(processes, "_SHARE", 0.0)
    monkeypatch.setattr(
        processes.Processes, "_begun", lambda self: (begun.append(self.workers), begin(self))[1]
    )
    assert prepared(config, tmp_path / "joined", cores=3) == alone
    assert set(begun) == {2}


def test_a_row_that_another_process_finds_wrong_is_told_with_its_place(
    config: dict[str, Any], tmp_path: Path
) -> None:
    path = Path(config["datasets"][0]["path"])
    rows = path.read_text().splitlines()
    rows[700] = '{"instruction": "a", "input": "", "output": 7}'
    path.write_text("\n".join(rows))
    with pytest.raises(BadRow, match=r"rows\.jsonl:701: the answer is 7"):
        prepared(config | {"dataset_num_proc": 2}, tmp_path / "out")


def killed(task: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_ended_is_told_with_the_way_out(
    config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "_carry_out", killed)
    with pytest.raises(Refused, match="AXOLOTL_DATASET_NUM_PROC=1") as told:
        prepared(config | {"dataset_num_proc": 2}, tmp_path / "out")
    assert told.value.exit == Exit.MEMORY


ORPHANS = """
import os, sys, time
from envtune.engine.data import processes
class Maker:
    def task(self, keys, batch): return batch
    def carry_out(self, task): time.sleep(60)
crew = processes.Processes(Maker(), 3, 4)
crew._begun().submit(processes._carry_out, 0)
print(*crew.pool._processes, flush=True)
time.sleep(60)
"""


def test_processes_end_with_the_one_that_they_work_for(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True)
    assert child.stdout
    pids = [int(word) for word in child.stdout.readline().split()]
    assert len(pids) == 3
    child.kill()
    child.wait()
    end = time.monotonic() + 10
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not any(map(psutil.pid_exists, pids))


def test_ray_makes_the_same_bytes_although_one_of_its_processes_is_killed(
    config: dict[str, Any], tmp_path: Path, alone: Files
) -> None:
    dead: list[int] = []
    ended = threading.Event()

    def kill() -> None:
        """Ends the first process of Ray's, of those that this one has started, that has a task."""
        while not dead and not ended.wait(0.01):
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    if " ".join(process.cmdline()).startswith("ray::Map"):
                        process.kill()
                        dead.append(process.pid)
                        return

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        assert prepared(config, tmp_path / "ray", ray="", cores=2) == alone
    finally:
        ended.set()
        killer.join()
    assert dead

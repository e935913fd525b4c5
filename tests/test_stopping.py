"""Signals and kills at random moments: nothing is lost, nothing is left, nothing differs."""

import json
import os
import random
import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from envtune import checkpoints
from tests.harness import Entrypoint, Start, losses, metrics, read

ADAPTER = Path("adapter") / "adapter_model.safetensors"


def _gone(start: Start, seconds: float = 0) -> bool:
    deadline = time.monotonic() + seconds
    while start.left_over() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not start.left_over()


def _finishes_like(entrypoint: Entrypoint, reference: Path) -> None:
    """The next start ends with the bytes and the history of a run never stopped."""
    run = entrypoint.train()
    assert losses(run) == losses(reference)
    assert (run / ADAPTER).read_bytes() == (reference / ADAPTER).read_bytes()
    tokens = [line["tokens"] for line in metrics(run)]
    assert tokens == [line["tokens"] for line in metrics(reference)]


def test_sigterm_at_a_random_step_commits_a_checkpoint_and_resumes_bit_for_bit(
    entrypoint: Entrypoint, lora: Path, dice: random.Random
) -> None:
    message = entrypoint.folder / "termination"
    start = entrypoint.start(TERMINATION_LOG_FILE=str(message))
    start.until_step(dice.randrange(2, 30))
    start.signal()
    result = start.wait(40)
    assert result.code == 143, result.err[-3000:]
    assert _gone(start)
    run = start.only_run()
    checkpoint = re.search(r"checkpoint-(\d+) is committed", message.read_text())
    assert checkpoint, message.read_text()
    assert read(run / "checkpoints" / checkpoint[0].split()[0] / "envtune.json")["step"] == int(
        checkpoint[1]
    )
    # The step that was running is the one that is saved.
    assert metrics(run)[-1]["step"] == int(checkpoint[1])
    assert not (run / ".complete").exists()
    _finishes_like(entrypoint, lora)


@pytest.mark.parametrize("attempt", range(3))
def test_sigterm_before_the_first_step_leaves_nothing_behind(
    entrypoint: Entrypoint, dice: random.Random, attempt: int
) -> None:
    start = entrypoint.start()
    time.sleep(dice.uniform(0.05, 10))
    start.signal()
    result = start.wait(30)
    assert result.code == 143, result.err[-3000:]
    # A key that is being tried or a table that is being printed may end by itself.
    assert _gone(start, seconds=5)
    assert not list(start.only_run().glob("checkpoints/checkpoint-*"))


def test_a_killed_supervisor_is_taken_over_without_a_second_trainer(
    entrypoint: Entrypoint, lora: Path, dice: random.Random
) -> None:
    first = entrypoint.start()
    first.until_step(dice.randrange(2, 20))
    os.kill(first.process.pid, signal.SIGKILL)
    orphans = first.left_over()
    assert orphans, "the trainer outlives its supervisor for a moment"
    second = entrypoint.start()
    while not _trainers(second):
        assert second.process.poll() is None
        time.sleep(0.02)
    assert not first.left_over(), "two trainers at once"
    result = second.wait()
    assert result.code == 0, result.err[-3000:]
    assert not first.left_over()
    run = second.only_run()
    assert losses(run) == losses(lora)
    assert (run / ADAPTER).read_bytes() == (lora / ADAPTER).read_bytes()


def _trainers(start: Start) -> list[int]:
    """The processes of a start that run Axolotl."""
    return [pid for pid, command in start.commands().items() if b"axolotl.cli.train" in command]


def test_a_killed_trainer_is_a_lost_rank_and_the_next_start_resumes(
    entrypoint: Entrypoint, lora: Path, dice: random.Random
) -> None:
    start = entrypoint.start()
    start.until_step(dice.randrange(6, 25))
    for pid in _trainers(start):
        os.kill(pid, signal.SIGKILL)
    result = start.wait(60)
    assert result.code == 202, result.err[-3000:]
    assert _gone(start)
    _finishes_like(entrypoint, lora)


def test_a_second_start_of_a_running_run_is_refused(entrypoint: Entrypoint) -> None:
    first = entrypoint.start()
    first.until(lambda: (first.only_run() / "outcome.json").exists())
    second = entrypoint.run()
    assert second.code == 1
    assert f"is being trained by process {first.process.pid} on" in second.err
    first.signal(signal.SIGINT)
    assert first.wait(40).code == 130
    assert _gone(first)


def test_a_second_sigterm_shortens_the_deadline(entrypoint: Entrypoint) -> None:
    """A trainer that is stopped by SIGSTOP never answers; two signals end it all the same."""
    start = entrypoint.start(SFT_GRACE_SECONDS="600")
    start.until_step(1)
    for pid in _trainers(start):
        os.kill(pid, signal.SIGSTOP)
    for _ in range(6):
        start.signal()
        time.sleep(0.2)
    assert start.wait(30).code == 143
    assert _gone(start)


def test_a_kill_after_the_last_step_that_left_only_shards_repeats_the_last_steps(
    entrypoint: Entrypoint, lora: Path
) -> None:
    """A checkpoint without an adapter in it, as FSDP's are, stands in for one."""
    run = entrypoint.folder / "outputs" / lora.name
    shutil.copytree(lora, run)
    shutil.rmtree(run / "adapter")
    (run / ".complete").unlink()
    last = max((run / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    (last / "adapter_model.safetensors").rename(last / "shard.safetensors")
    checkpoints.commit(last, int(last.name[11:]))
    record, outcome = read(run / "run.json"), read(run / "outcome.json")
    (run / "run.json").write_text(json.dumps(record | {"stages": {}}))
    (run / "outcome.json").write_text(json.dumps(outcome | {"state": "training"}))
    _finishes_like(entrypoint, lora)


@pytest.mark.parametrize("state", ["finished", "training"])
def test_a_kill_after_the_last_step_publishes_without_another(
    entrypoint: Entrypoint, lora: Path, state: str
) -> None:
    """What such a kill leaves: every step in a checkpoint, and no record of the stage."""
    run = entrypoint.folder / "outputs" / lora.name
    shutil.copytree(lora, run)
    shutil.rmtree(run / "adapter")
    (run / ".complete").unlink()
    record, outcome = read(run / "run.json"), read(run / "outcome.json")
    (run / "run.json").write_text(json.dumps(record | {"stages": {}}))
    (run / "outcome.json").write_text(json.dumps(outcome | {"state": state}))
    result = entrypoint.run()
    assert result.code == 0, result.err[-3000:]
    assert "every step was done before" in result.err
    assert (run / ADAPTER).read_bytes() == (lora / ADAPTER).read_bytes()
    assert read(run / "report.json") | {"stage_seconds": 0, "peak_process_memory_bytes": 0} == (
        read(lora / "report.json") | {"stage_seconds": 0, "peak_process_memory_bytes": 0}
    )

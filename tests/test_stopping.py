"""Signals and kills at random moments: nothing is lost, nothing is left, nothing differs."""

import json
import os
import random
import re
import shutil
import signal
import socket
import time
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from envtune.artifacts import checkpoints
from tests import stops
from tests.harness import ROOT, Entrypoint, Start, kill, losses, metrics, read

DRILL = bool(os.environ.get("DRILL"))
ADAPTER = Path("adapter") / "adapter_model.safetensors"


def _finishes_like(entrypoint: Entrypoint, reference: Path, **forking: str) -> None:
    """The next start ends with the bytes and the history of a run never stopped.

    That a resumed training does is the first test's through the real entrypoint; where the
    training is forked, the test is about what was left to resume.
    """
    run = entrypoint.train(**forking)
    assert losses(run) == losses(reference)
    assert (run / ADAPTER).read_bytes() == (reference / ADAPTER).read_bytes()
    tokens = [line["tokens"] for line in metrics(run)]
    assert tokens == [line["tokens"] for line in metrics(reference)]


def test_sigterm_at_a_random_step_commits_a_checkpoint_and_resumes_bit_for_bit(
    entrypoint: Entrypoint, lora: Path, dice: random.Random
) -> None:
    message = entrypoint.folder / "termination"
    start = entrypoint.start(TERMINATION_LOG_FILE=str(message))
    start.until_step(dice.randrange(2, 12))
    start.signal()
    result = start.wait()
    assert result.code == 143, result.err[-3000:]
    assert not start.left_over()
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


# Those that a start goes through whatever is set, in their order.
ALWAYS = ("the door", "check", "login", "configure", "preparation", "imports", "loading", "step",
          "save", "export", "evaluation")  # fmt: skip
MORE = {
    "AXOLOTL_SAVE_STEPS": "3", "SFT_EVAL_PROMPTS": '["Name the capital of France."]',
}  # fmt: skip


@dataclass
class Stops:
    """Stops one start after another of the same run, and remembers what they took."""

    entrypoint: Entrypoint
    dice: random.Random
    forking: dict[str, str]
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def at(self, name: str) -> None:
        """SIGTERM at a drawn moment after a phase is seen, to process 1 or to its group."""
        phase, message = stops.PHASES[name], self.entrypoint.folder / "termination"
        real = {} if name == "imports" else self.forking
        start = self.entrypoint.start(**real, TERMINATION_LOG_FILE=str(message))
        _until_seen(start, phase)
        time.sleep(self.dice.uniform(0, 0.1))
        began = time.monotonic()
        self.dice.choice([start.signal, start.signal_group])()
        result = start.wait()
        self.seconds[name].append(round(time.monotonic() - began, 2))
        assert result.code == phase.code, (name, result.err[-3000:])
        # It may have come to the next phase by then; a phase before the run has one last word.
        later = list(stops.PHASES)[list(stops.PHASES).index(name) :]
        words = [stops.PHASES[each].word for each in later[:3]]
        assert any(re.fullmatch(word, message.read_text()) for word in words), message.read_text()
        assert start.gone(1), (name, start.commands())


def _until_seen(start: Start, phase: stops.Phase) -> None:
    """Without the pause of `until`: some phases are short."""
    deadline = time.monotonic() + 900
    while not phase.seen(start):
        assert start.process.poll() is None, start.err[-3000:]
        assert time.monotonic() < deadline, start.err[-3000:]


def test_sigterm_in_any_phase_has_its_end_and_the_next_start_goes_on(
    entrypoint: Entrypoint, lora: Path, dice: random.Random, forking: dict[str, str]
) -> None:
    """`make drill-stops`: STOPS times, each run stopped in every phase; else a sample of 5."""
    entrypoint = replace(entrypoint, settings={**entrypoint.settings, **MORE})
    drill = int(os.environ.get("STOPS", "60")) if DRILL else 0
    done = 0
    while done < (drill or 1):
        made = replace(entrypoint, folder=entrypoint.folder / str(done))
        made.folder.mkdir()
        stopped = Stops(made, dice, forking)
        early, late = ALWAYS[:6], ALWAYS[6:]
        drawn = ALWAYS if drill else (*dice.sample(early, 2), *dice.sample(late, 3))
        names = sorted(drawn, key=ALWAYS.index)[: (drill or 5) - done]
        for name in names:
            stopped.at(name)
        _finishes_like(made, lora, **forking)
        done += len(names)
        print(f"{done} stops: {dict(stopped.seconds)} s")


def test_the_phases_that_readers_are_told_of_are_those_that_are_tried() -> None:
    text = (ROOT / "docs" / "stopping.md").read_text()
    told = dict(re.findall(r"^\| ([a-z ]+) \| [^|]+ \| (\d+) \|", text, re.M))
    assert told == {name: str(phase.code) for name, phase in stops.PHASES.items()}


def test_a_killed_supervisor_is_taken_over_without_a_second_trainer(
    entrypoint: Entrypoint, lora: Path, dice: random.Random
) -> None:
    first = entrypoint.start()
    first.until_step(dice.randrange(2, 12))
    assert _trainers(first), "there is nothing to take over"
    os.kill(first.process.pid, signal.SIGKILL)
    second = entrypoint.start()
    second.until(lambda: bool(_trainers(second)))
    assert not first.left_over(), "two trainers at once"
    result = second.wait()
    assert result.code == 0, result.err[-3000:]
    assert not first.left_over()
    run = second.only_run()
    assert losses(run) == losses(lora)
    assert (run / ADAPTER).read_bytes() == (lora / ADAPTER).read_bytes()


def _trainers(start: Start) -> list[int]:
    """The processes of a start that run Axolotl."""
    return [pid for pid, command in start.commands().items() if b"envtune.engine.train" in command]


def test_a_killed_trainer_is_a_lost_rank_and_the_next_start_resumes(
    entrypoint: Entrypoint, lora: Path, dice: random.Random, forking: dict[str, str]
) -> None:
    start = entrypoint.start()
    start.until_step(dice.randrange(6, 12))
    for pid in _trainers(start):
        kill(pid)
    result = start.wait()
    assert result.code == 202, result.err[-3000:]
    assert not start.left_over()
    _finishes_like(entrypoint, lora, **forking)


@pytest.mark.parametrize("count", [2, 4, 8] if DRILL else [4])
def test_of_many_starts_at_one_moment_one_trains_and_the_others_say_who(
    entrypoint: Entrypoint, count: int
) -> None:
    """Of a run that nobody has begun, and then of one that is there."""
    many = {"AXOLOTL_NUM_EPOCHS": "200"}
    for number in (count, 2):
        starts = [entrypoint.start(**many) for _ in range(number)]
        one = _left_alone(starts)
        one.until(lambda one=one: stops.step(one) >= 1)
        who = f"is being trained by process {one.process.pid} on {socket.gethostname()} since 20"
        for other in starts:
            if other is not one:
                result = other.wait()
                assert (result.code, who in result.err) == (1, True), result.err[-3000:]
                assert not re.search("Traceback|No such file|missing", result.err), result.err
        [run] = (entrypoint.folder / "outputs").glob("*-run*")
        one.signal(signal.SIGINT)
        assert one.wait().code == 130
        assert not [pid for start in starts for pid in start.left_over()]
        assert list(run.glob("checkpoints/checkpoint-*"))


def _left_alone(starts: list[Start]) -> Start:
    deadline = time.monotonic() + 900
    while len(left := [start for start in starts if start.process.poll() is None]) > 1:
        assert time.monotonic() < deadline, [start.err[-1000:] for start in left]
        time.sleep(0.05)
    assert left, [start.err[-1000:] for start in starts]
    return left[0]


def test_a_second_sigterm_shortens_the_deadline(entrypoint: Entrypoint) -> None:
    """A trainer that is stopped by SIGSTOP never answers; two signals end it all the same."""
    start = entrypoint.start(SFT_GRACE_SECONDS="86400", AXOLOTL_NUM_EPOCHS="200")
    start.until_step(1)
    for pid in _trainers(start):
        kill(pid, signal.SIGSTOP)
    # Those that come while it is not looking are one.
    deadline = time.monotonic() + 900
    while start.process.poll() is None and time.monotonic() < deadline:
        start.signal()
        time.sleep(0.2)
    assert start.wait(60).code == 143
    assert not start.left_over()


def test_a_kill_after_the_last_step_that_left_only_shards_repeats_the_last_steps(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
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
    _finishes_like(entrypoint, lora, **forking)


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

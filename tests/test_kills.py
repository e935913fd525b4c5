"""A training that is killed anywhere, by SIGKILL, ends as one never stopped: with its history, its
evaluations and its bytes.

Killed are the trainer, one rank of two, the supervisor, or all that a start has begun; at a step,
inside a save, in the preparation, and while the model is loaded. `make drill-kills` kills KILLS
times (100) over packed and unpacked, LoRA and all weights, one process and two; without DRILL it is
a seeded sample of 3.
"""

import json
import os
import random
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envtune import channel
from envtune.artifacts import checkpoints, manifests
from tests.harness import Entrypoint, Start, kill, metrics, read

DRILL = bool(os.environ.get("DRILL"))
KILLS = int(os.environ.get("KILLS", "100"))

EPOCHS = 3
EVERY = {
    "AXOLOTL_NUM_EPOCHS": str(EPOCHS), "AXOLOTL_SAVE_STEPS": "5", "AXOLOTL_VAL_SET_SIZE": "3",
    "AXOLOTL_EVAL_STEPS": "7", "AXOLOTL_MICRO_BATCH_SIZE": "2",
}  # fmt: skip
PACKED = {"AXOLOTL_SAMPLE_PACKING": "true", "AXOLOTL_ATTN_IMPLEMENTATION": "sdpa"}
UNPACKED = {"AXOLOTL_MICRO_BATCH_SIZE": "8"}
DROPOUT = {"AXOLOTL_LORA_DROPOUT": "0.05"}
FULL = {"AXOLOTL_ADAPTER": "null", "AXOLOTL_LEARNING_RATE": "1e-3"}
PAIR = {"NPROC": "2", "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "1"}
CASES = {
    f"{rows}, {what}, {processes}": one | other | more
    for rows, one in (("packed", PACKED), ("unpacked", UNPACKED))
    for what, other in (("LoRA", DROPOUT), ("all weights", FULL))
    for processes, more in (("one process", {}), ("two processes", PAIR))
}
# In an order of its own, each.
ORDERED = {
    "grouped by length": UNPACKED | {"AXOLOTL_GROUP_BY_LENGTH": "true"},
    "a curriculum": UNPACKED | {"AXOLOTL_CURRICULUM_SAMPLING": "true"},
    "a stream": {
        "AXOLOTL_STREAMING": "true", "AXOLOTL_MAX_STEPS": "60",
        "AXOLOTL_VAL_SET_SIZE": "0", "AXOLOTL_EVAL_STEPS": "null",
    },
    "a packed curriculum": PACKED | {"AXOLOTL_CURRICULUM_SAMPLING": "true"},
}  # fmt: skip
ALL = CASES | ORDERED
# What a start ends with when that much of it is killed.
ENDS = {"the trainer": 202, "a rank": 202, "the supervisor": 137, "everything": 137}
MOMENTS = ("a step", "a step", "a save", "the preparation", "the loading")
PROCESSES = {
    "the preparation": b"envtune.engine.data.prepare",
    "the loading": b"envtune.engine.train",
}


@dataclass(frozen=True)
class Kill:
    """One kill: of whom, when, and so many seconds after that was seen."""

    whom: str
    moment: str
    step: int
    after: float

    def wait_for(self, start: Start) -> None:
        """Until the moment is there: told by the processes of this start and by the run's files."""
        if self.moment in PROCESSES:
            start.until(lambda: bool(_running(start, PROCESSES[self.moment])))
            time.sleep(self.after)
            return
        start.until(lambda: _trains(start.only_run(), self.step))
        if self.moment == "a save":
            _until_a_save(start, start.only_run() / "checkpoints")
        time.sleep(self.after / 10)

    def of(self, start: Start) -> None:
        """Kills, as soon as there is something to be killed."""
        while not (engine := _running(start, b"envtune.engine.")):
            assert start.process.poll() is None, start.err[-3000:]
        whom = {
            "the trainer": engine,
            "a rank": _ranks(engine)[-1:] or engine,
            "the supervisor": [start.process.pid],
            "everything": [start.process.pid, *start.left_over()],
        }[self.whom]
        for pid in whom:
            kill(pid)


def _running(start: Start, module: bytes) -> list[int]:
    return [pid for pid, command in start.commands().items() if module in command]


def _ranks(pids: list[int]) -> list[int]:
    """Those that torchrun has told their rank."""
    found = []
    for pid in pids:
        with suppress(OSError):
            if b"\0LOCAL_RANK=" in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found


def _state(run: Path) -> str:
    outcome = channel.read_outcome(run)
    return outcome.state if outcome else ""


def _trains(run: Path, step: int) -> bool:
    """What an earlier start has left there is cut off before this one trains."""
    return _state(run) == "training" and any(line["step"] >= step for line in metrics(run))


def _until_a_save(start: Start, folder: Path) -> None:
    """Until one is begun that is not committed; or too near to the end to wait any longer."""
    last = max(line["step"] for line in metrics(folder.parent)) + 6
    while start.process.poll() is None and not _trains(folder.parent, last):
        if any(manifests.is_half(path) for path in checkpoints.named(folder)):
            return


def killed(entrypoint: Entrypoint, one: Kill) -> None:
    """A start that is killed. One that had nothing left to be killed ended well."""
    start = entrypoint.start()
    one.wait_for(start)
    one.of(start)
    result = start.wait()
    assert result.code == ENDS[one.whom], (one, result.err[-3000:])
    if one.whom != "the supervisor":  # whose trainer the next start lets save
        assert start.gone(), (one, start.commands())


def drawn(dice: random.Random, last: int, kills: int, world: int) -> list[Kill]:
    """Kills in the order of their steps, so that there always is something left to train."""
    whom = [name for name in ENDS if name != "a rank" or world > 1]
    steps = sorted(dice.choices(range(2, last - 10), k=kills))
    return [Kill(dice.choice(whom), dice.choice(MOMENTS), s, dice.uniform(0, 0.5)) for s in steps]


def drill(
    name: str, folder: Path, settings: dict[str, str], dice: random.Random, kills: int
) -> Counter[str]:
    """Trains with and without kills, and compares."""
    for place in ("whole", "killed"):
        (folder / place).mkdir(parents=True)
    reference = Entrypoint(folder / "whole", settings).train()
    disturbed = Entrypoint(folder / "killed", settings)
    last = metrics(reference)[-1]["step"]
    plan = drawn(dice, last, kills, int(settings.get("NPROC", "1")))
    for one in plan:
        killed(disturbed, one)
    run = disturbed.train()
    for told in (history, evaluations, weights):
        assert told(run) == told(reference), (name, told.__name__, plan)
    if name in CASES and name.startswith("packed"):
        trained_whole(reference)
    print(f"{name}: {last} steps, {kills} kills, the same history and bytes")
    return Counter(f"{one.whom} at {one.moment}" for one in plan)


def history(run: Path) -> list[list[Any]]:
    names = ("step", "loss", "grad_norm", "learning_rate", "tokens", "epoch")
    return [[line[name] for name in names] for line in metrics(run)]


def evaluations(run: Path) -> list[tuple[int, float]]:
    path = run / "eval" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line["step"], line["eval_loss"]) for line in map(json.loads, lines)]


def weights(run: Path) -> bytes:
    [found] = [p for kind in ("adapter", "model") for p in (run / kind).glob("*model.safetensors")]
    return found.read_bytes()


def trained_whole(run: Path) -> None:
    """Every token that was prepared is trained in every epoch, and every row is evaluated."""
    prepared = read(run / "run.json")["stages"]["prepare"]["tokens"]["train"]
    assert metrics(run)[-1]["tokens"] == EPOCHS * prepared
    assert [step for step, _ in evaluations(run)][:3] == [0, 7, 14]


def share(kills: int, cases: int, number: int) -> int:
    """So many of the kills are case `number`'s, counted from 0."""
    return kills // cases + (number < kills % cases)


@pytest.mark.parametrize("name", list(ALL) if DRILL else ["a sample"])
def test_a_killed_run_ends_with_the_history_and_the_bytes_of_one_never_stopped(
    name: str, settings: dict[str, str], tmp_path: Path, dice: random.Random,
    forking: dict[str, str],
) -> None:  # fmt: skip
    if DRILL:
        cases = [(name, share(KILLS, len(ALL), list(ALL).index(name)))]
    else:
        packed = dice.choice([case for case in CASES if case.startswith("packed")])
        other = dice.choice([case for case in CASES if case.startswith("unpacked")])
        cases = [(packed, 1), (other, 2)]
    for case, kills in cases:
        found = drill(case, tmp_path / case, settings | EVERY | forking | ALL[case], dice, kills)
        print(f"{case}: {dict(found)}")

"""A training that hangs is found: who is where is told on one line, and the next start goes on."""

import os
from pathlib import Path

import pytest

from tests.harness import Entrypoint, losses, metrics, read

DRILL = bool(os.environ.get("DRILL"))
STAGING = Path(__file__).parent / "staging"
PLUGIN = {
    "PYTHONPATH": str(STAGING),
    "AXOLOTL_PLUGINS": '["staged.Plugin"]',
    "AXOLOTL_SAVE_STEPS": "4",
}
QUICK = {"SFT_WATCHDOG": "2", "SFT_WATCHDOG_SECONDS": "4"}
TWO = {"SFT_ACCELERATE_PRESET": "ddp", "SFT_ACCELERATE_LAUNCH_ARGS": '{"num_processes": 2}'}


HANGS: list[tuple[str, int, dict[str, str], str]] = [
    ("stop", 7, {**TWO, "STAGED_RANK": "1"}, "is stopped, as by SIGSTOP"),
    ("stop", 0, {}, "is stopped, as by SIGSTOP"),
    ("hang", 7, {}, "rank 0 (process "),
    ("hang", 7, {**TWO, "STAGED_RANK": "1"}, "rank 1 (process "),
]


@pytest.mark.skipif(not DRILL, reason="a whole training: make drill-failures")
def test_a_clock_that_is_set_back_while_it_trains_changes_nothing(
    entrypoint: Entrypoint, lora: Path
) -> None:
    more = {**PLUGIN, "STAGED": "set_clock_back", "STAGED_STEP": "7"}
    run = entrypoint.train(**more)
    assert losses(run) == losses(lora)
    seconds = [line["seconds"] for line in metrics(run)]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(("staged", "step", "world", "told"), HANGS if DRILL else HANGS[-1:])
def test_a_training_that_hangs_ends_with_202_and_names_who_hangs_and_where(
    entrypoint: Entrypoint, staged: str, step: int, world: dict[str, str], told: str
) -> None:
    word = entrypoint.folder / "termination"
    more = {**PLUGIN, **QUICK, **world, "STAGED": staged, "STAGED_STEP": str(step)}
    start = entrypoint.start(**more, TERMINATION_LOG_FILE=str(word))
    result = start.wait()
    line = word.read_text()
    assert result.code == 202, result.err[-3000:]
    assert told in line
    assert staged == "stop" or "`waits_for_nobody` (" in line
    assert len(line.encode()) <= 4096
    assert len(line.splitlines()) == 1
    assert start.gone()
    run = start.only_run()
    stacks = [path.read_text() for path in sorted(run.glob("stacks/rank*.txt"))]
    assert len(stacks) == (2 if world else 1)
    assert not (run / ".ranks").exists()
    print(line)
    if not DRILL:
        return
    again = entrypoint.start(**more)
    assert again.wait().code == 0, again.err[-3000:]
    assert losses(run)[-1][0] == read(run / "outcome.json")["max_steps"]

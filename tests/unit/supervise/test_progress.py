"""What is shown of a child that counts."""

import json
import logging
from pathlib import Path

import pytest

from envtune.channel import Outcome
from envtune.supervise.progress import Counted, Progress, Read


def test_a_log_gets_the_first_and_the_last_line_and_one_every_few_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 0.0
    shown = Counted("evaluate", lambda: now)
    with caplog.at_level(logging.INFO, "envtune"):
        for done in range(1, 13):
            now = float(done)
            shown.line(f"evaluate: tuned: rows: {done} of 12")
        shown.line("evaluate: base: rows: 1 of 12")
        shown.line("evaluate: a line that counts nothing")
        shown.line("Loading weights: 3 of 9")
    shown.close()
    assert caplog.messages == [
        "evaluate: tuned: rows: 1 of 12",
        "evaluate: tuned: rows: 7 of 12",
        "evaluate: tuned: rows: 12 of 12",
        "evaluate: base: rows: 1 of 12",
    ]


def test_of_rows_that_are_read_their_rate_and_the_time_left_are_told(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0

    def clock() -> float:
        return now

    for terminal in (False, True):
        shown = Read("prepare", clock)
        shown.terminal = terminal
        with caplog.at_level(logging.INFO, "envtune"):
            for step in range(1, 12):
                now += 1.0
                shown.line(f"prepare: {4000 * step} rows: {1000 * step} of 20000")
        shown.close()
    assert caplog.messages == [
        "prepare: 4,000 rows read, 4,000 rows/s, 0:19 left",
        "prepare: 28,000 rows read, 4,000 rows/s, 0:13 left",
    ]
    drawn = capsys.readouterr().err
    assert "prepare: reading the rows  55%" in drawn
    assert "4,000 rows/s" in drawn


def test_a_terminal_gets_a_bar_for_each_thing_that_is_counted(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    shown = Counted("evaluate")
    shown.terminal = True
    with caplog.at_level(logging.INFO, "envtune"):
        for line in ("tuned: rows: 10 of 10", "base: rows: 5 of 10"):
            shown.line(f"evaluate: {line}")
    shown.close()
    drawn = capsys.readouterr().err
    assert "evaluate: tuned: rows: 100%" in drawn
    assert "evaluate: base: rows:  50%" in drawn
    assert not caplog.messages


@pytest.mark.parametrize(
    ("brought", "said"), [((0, 0), "1,100 tokens/s"), ((8, 10_000), "100 tokens/s")]
)
def test_what_a_checkpoint_brought_took_no_time_of_this_run(
    brought: tuple[int, int], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    line = {"step": 10, "loss": 1.5, "seconds": 10.0, "tokens": 11_000}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    outcome = Outcome(state="training", step=10, max_steps=20)
    with caplog.at_level("INFO", "envtune"):
        Progress(tmp_path, lambda: outcome, brought).tick()
    left = "0:10" if brought == (0, 0) else "0:50"
    assert caplog.messages[-1] == f"train: step 10/20, loss 1.5000, {said}, {left} left"

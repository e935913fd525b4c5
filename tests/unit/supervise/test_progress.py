"""What is shown of a child that counts."""

import logging

import pytest

from envtune.supervise.progress import Counted


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

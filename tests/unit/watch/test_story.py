"""Events put together: each step once, whatever was started again."""

import random
from pathlib import Path

from envtune.events import Follower, Stream
from envtune.watch import report, story
from envtune.watch.story import Story


def test_a_start_that_goes_on_takes_back_what_it_makes_again(tmp_path: Path) -> None:
    stream = Stream(tmp_path, clock=iter(range(100)).__next__)
    stream.add("start", run="r")
    stream.add("resumed", step=0)
    for step in range(1, 8):
        stream.add("step", step=step, max_steps=10, loss=float(step))
    stream.add("evaluation", step=6, eval_loss=9.0)
    stream.add("start", run="r")
    stream.add("resumed", step=5, checkpoint="checkpoints/checkpoint-5")
    for step in range(6, 11):
        stream.add("step", step=step, max_steps=10, loss=-float(step))
    told = story.of(tmp_path)
    assert list(told.steps) == list(range(1, 11))
    assert [event["loss"] for event in told.steps.values()] == [1, 2, 3, 4, 5, -6, -7, -8, -9, -10]
    assert told.evaluations == {}
    assert len(told.starts) == 2


def test_feeding_by_and_by_is_the_same_as_all_at_once(tmp_path: Path, dice: random.Random) -> None:
    stream, follower, by_and_by = Stream(tmp_path), Follower(tmp_path), Story()
    step = 0
    for _ in range(300):
        if dice.random() < 0.1:
            step = dice.randrange(step + 1)
            stream.add("resumed", step=step)
        else:
            step += 1
            stream.add("step", step=step, loss=dice.random())
        if dice.random() < 0.3:
            by_and_by.feed(follower.new())
    assert by_and_by.feed(follower.new()) == story.of(tmp_path)


def test_a_warning_that_repeats_itself_is_kept_once(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    for number in range(500):
        stream.add("warning", text="the same")
        stream.add("problem", text=f"another {number}")
    told = story.of(tmp_path)
    assert len(told.warnings) == 1
    assert len(told.problems) == 100


def test_the_best_evaluation_is_the_lowest(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        stream.add("evaluation", step=step, eval_loss=loss)
    told = story.of(tmp_path)
    assert told.best is not None
    assert told.best["step"] == 2
    assert told.evaluated["step"] == 3


def test_nobody_pays_for_the_night_between_two_starts(tmp_path: Path) -> None:
    stream = Stream(tmp_path, clock=iter([100.0, 160.0, 40_000.0, 40_030.0, 40_020.0]).__next__)
    for kind in ("start", "resumed", "start", "resumed", "resumed"):
        stream.add(kind, **({"run": "r", "price": 2.0} if kind == "start" else {"step": 0}))
    told = story.of(tmp_path)
    assert told.spent == 90.0
    assert dict(report.figures(told, {}))["money"].startswith("0.05 $")

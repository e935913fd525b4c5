"""The stream of events: what is written, by whom, and what a reader takes of it."""

import json
import logging
import random
import threading
from pathlib import Path

import pytest

from envtune import events
from envtune.events import Follower, Handler, Stream

TOKEN = "hf_" + "Ab3d5F7h9J" * 3


def test_a_kind_or_a_field_that_nobody_knows_is_our_own_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no field 'colour'"):
        Stream(tmp_path).add("step", step=1, colour="red")
    with pytest.raises(ValueError, match="'party'"):
        Stream(tmp_path).add("party", step=1)
    assert events.read(tmp_path) == []


def test_a_secret_an_escape_and_a_megabyte_do_not_come_through(tmp_path: Path) -> None:
    text = f"\x1b[31mtoken {TOKEN}\r\nand <script>\u202e " + "x" * 1_000_000
    Stream(tmp_path, (TOKEN,)).add("warning", text=text)
    written = (tmp_path / events.EVENTS).read_text()
    assert TOKEN not in written
    assert len(written) < 3000
    (event,) = events.read(tmp_path)
    assert event["text"].isprintable()
    assert "[secret]" in event["text"]


def test_a_figure_that_is_none_is_left_out(tmp_path: Path) -> None:
    Stream(tmp_path).add("step", step=3, loss=float("nan"), grad_norm=float("inf"), tokens=None)
    (event,) = events.read(tmp_path)
    assert event.keys() == {"time", "kind", "step"}


def test_half_a_line_that_a_kill_has_left_costs_that_line_alone(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    stream.add("step", step=1, loss=2.0)
    with stream.path.open("a") as file:
        file.write('{"time": 1.0, "kind": "st')
    stream.add("step", step=2, loss=1.0)
    assert [event["step"] for event in events.read(tmp_path)] == [1, 2]


@pytest.mark.parametrize(
    "line",
    ["", "[]", "null", "{}", "{" * 9000, '{"time": 1, "kind": []}', '{"time": 1, "kind": "step"}',
     '{"time": 1, "kind": "step", "step": "7"}', '{"time": "1", "kind": "warning", "text": "x"}',
     '{"time": 1, "kind": "outcome", "exit": null}', "\x00" * 400, '{"kind": "step", "step": 1}'],
)  # fmt: skip
def test_what_is_no_event_is_dropped_and_the_next_one_is_read(tmp_path: Path, line: str) -> None:
    path = tmp_path / events.EVENTS
    path.write_text(f'{line}\n{{"time": 2, "kind": "step", "step": 8}}\n')
    assert [event["step"] for event in events.read(tmp_path)] == [8]


def test_random_bytes_end_no_reader(tmp_path: Path, dice: random.Random) -> None:
    Stream(tmp_path).add("step", step=1)
    with (tmp_path / events.EVENTS).open("ab") as file:
        file.write(dice.randbytes(100_000) + b"\n")
    Stream(tmp_path).add("step", step=2)
    assert [event["step"] for event in events.read(tmp_path)] == [1, 2]


def test_a_follower_gets_each_event_once_and_waits_for_half_a_line(tmp_path: Path) -> None:
    follower, stream = Follower(tmp_path), Stream(tmp_path)
    assert not list(follower.new())
    stream.add("step", step=1)
    assert [event["step"] for event in follower.new()] == [1]
    line = json.dumps({"time": 1, "kind": "step", "step": 2})
    with stream.path.open("a") as file:
        file.write(line[:10])
    assert not list(follower.new())
    with stream.path.open("a") as file:
        file.write(line[10:] + "\n")
    assert [event["step"] for event in follower.new()] == [2]


def test_two_writers_cut_no_line_of_each_other(tmp_path: Path) -> None:
    def write(first: int) -> None:
        stream = Stream(tmp_path)
        for step in range(first, first + 500):
            stream.add("step", step=step, loss=1.25)

    threads = [threading.Thread(target=write, args=(first,)) for first in (0, 500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(event["step"] for event in events.read(tmp_path)) == list(range(1000))


def test_what_cannot_be_written_is_told_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / events.EVENTS).mkdir()
    stream = Stream(tmp_path)
    stream.add("step", step=1)
    stream.add("step", step=2)
    assert "cannot be written: Is a directory" in stream.trouble


def test_a_pipe_of_a_neighbour_keeps_nobody_waiting(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / events.EVENTS)
    stream = Stream(tmp_path)
    stream.add("step", step=1)
    assert stream.trouble
    assert events.read(tmp_path) == []


def test_what_is_logged_as_wrong_becomes_an_event(tmp_path: Path) -> None:
    log = logging.getLogger("envtune.of-a-test")
    log.addHandler(handler := Handler(Stream(tmp_path)))
    log.info("nothing")
    log.warning("careful: %d", 1)
    log.error("broken")
    log.removeHandler(handler)
    told = [(event["kind"], event["text"]) for event in events.read(tmp_path)]
    assert told == [("warning", "careful: 1"), ("problem", "broken")]

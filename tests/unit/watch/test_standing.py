"""How a run stands, in every state: what lies on the disk is written by those who write it."""

import argparse
import json
import os
from pathlib import Path

import pytest

from envtune import channel
from envtune.artifacts import checkpoints
from envtune.channel import Outcome
from envtune.cli import status, welcome
from envtune.errors import Exit
from envtune.events import Stream
from envtune.runs import folders
from envtune.runs.contents import COMPLETE, RECORD
from envtune.runs.folders import Run
from envtune.runs.lease import Lease
from envtune.serve import health
from envtune.watch import standing


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run that was made and not started."""
    folder = tmp_path / "outputs" / "tiny-run1"
    folder.mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    _record(folder)
    (tmp_path / "outputs" / "latest.txt").write_text("tiny-run1\n")
    return folders.open_run(folder)


def _record(folder: Path, **more: object) -> None:
    logs = str(folder.parents[1] / "logs" / "tiny-run1")
    first = {"name": "tiny-run1", "prefix": "tiny", "number": 1, "key": "k", "logs": logs}
    (folder / RECORD).write_text(json.dumps({**first, **more}))


def _began(run: Run, *stages: str) -> Stream:
    """The stream of a start that has come to the last of some stages."""
    stream = Stream(run.folder)
    stream.add("start", run=run.name)
    for stage in stages:
        stream.add("stage", stage=stage, state="begun")
        if stage != stages[-1]:
            stream.add("stage", stage=stage, state="done", seconds=1.0)
    return stream


def _trains(run: Run, state: str = "training", step: int = 4) -> Stream:
    stream = _began(run, "fetch", "prepare", "train")
    owner = channel.process_stamp(os.getpid()) or ""
    Outcome(owner=owner, state=state, step=step, max_steps=10).write(run.folder, durable=False)
    for at in range(1, step + 1):
        stream.add("step", step=at, max_steps=10, loss=5.0 - at / 2, seconds=2.0 * at)
    return stream


def _seen(run: Run) -> tuple[str, str, str]:
    """State, text and what comes next; nothing is made by looking."""
    before = sorted(run.folder.parents[1].rglob("*"))
    found = standing.of(run)
    assert sorted(run.folder.parents[1].rglob("*")) == before
    assert found.state in standing.STATES
    return found.state, found.text, found.after


def test_a_run_that_was_made_alone_is_configured(run: Run) -> None:
    state, text, after = _seen(run)
    assert (state, text) == ("configured", "is configured and was not started")
    assert after == f"envtune run --folder {run.folder}"


def test_a_start_at_its_very_beginning_waits(run: Run) -> None:
    with Lease(run.folder):
        assert _seen(run)[0] == "waiting"


def test_a_start_that_begins_again_says_how_the_last_one_ended(run: Run) -> None:
    _began(run, "fetch").add("outcome", exit=201, text="the network failed")
    with Lease(run.folder):
        assert _seen(run)[:2] == (
            "waiting", "begins again; the last start ended with 201",
        )  # fmt: skip


@pytest.mark.parametrize(
    ("stages", "state", "word"),
    [
        (("fetch",), "fetching", "fetching its models"),
        (("fetch", "prepare"), "preparing", "preparing its rows"),
        (("fetch", "prepare", "train", "export"), "working", "is exporting"),
        (("fetch", "prepare", "train", "export", "parity"), "working", "proved to answer"),
    ],
)
def test_each_stage_is_told(run: Run, stages: tuple[str, ...], state: str, word: str) -> None:
    _began(run, *stages)
    with Lease(run.folder):
        told, text, after = _seen(run)
    assert (told, word in text) == (state, True)
    assert after == f"tail -f {run.logs}/{stages[-1]}/run.log"


@pytest.mark.parametrize(
    ("phase", "state", "word"),
    [
        ("starting", "loading", "model"),
        ("data", "loading", "rows"),
        ("model", "loading", "model"),
        ("training", "training", "at step 4 of 10"),
    ],
)
def test_a_training_tells_its_phase(run: Run, phase: str, state: str, word: str) -> None:
    _trains(run, phase)
    with Lease(run.folder):
        told, text, _ = _seen(run)
    assert (told, word in text) == (state, True)


def test_what_an_earlier_start_has_left_says_nothing_of_this_one(run: Run) -> None:
    Outcome(owner="1:1", state="training", step=9, max_steps=10).write(run.folder)
    channel.request_stop(run.folder)
    _began(run, "fetch", "prepare", "train")
    with Lease(run.folder):
        assert _seen(run)[:2] == ("loading", "is at work: it loads its model")


def test_nodes_that_have_not_all_come_are_waited_for(run: Run) -> None:
    _record(run.folder, resolved={"parallel": {"nodes": 3}})
    _began(run, "train")
    with Lease(run.folder):
        assert _seen(run)[:2] == ("waiting", "is at work: it waits until all of 3 nodes have come")
        _trains(run)
        assert _seen(run)[0] == "training"


def test_a_save_is_told_from_its_beginning_to_its_commit(run: Run) -> None:
    _trains(run)
    folder = run.folder / "checkpoints" / "checkpoint-4"
    with Lease(run.folder):
        checkpoints.begin(folder, 4)
        assert _seen(run)[:2] == ("saving", "is saving checkpoint-4")
        (folder / "trainer_state.json").write_text("{}")
        checkpoints.commit(folder, 4)
        assert _seen(run)[0] == "training"
        assert standing.of(run).checkpoint == "checkpoint-4"


def test_a_stop_that_was_asked_for_is_told(run: Run) -> None:
    _trains(run)
    with Lease(run.folder):
        channel.request_stop(run.folder)
        assert _seen(run)[0] == "stopping"


@pytest.mark.parametrize(
    ("outcome", "state", "after"),
    [
        ({"exit": 143, "message": "stopped"}, "stopped", "goes on from its checkpoint"),
        ({"exit": 130, "message": "interrupted"}, "stopped", "goes on from its checkpoint"),
        ({"exit": 7, "message": "SFT_MAX_HOURS: 2"}, "stopped", "raise the limit"),
        ({"exit": 3, "message": "bad rows"}, "failed", "change what it names"),
        ({"exit": 200, "message": "full"}, "failed", "envtune doctor && "),
        ({"exit": 202, "message": "a GPU"}, "failed", "envtune doctor && "),
        ({"exit": 5, "message": "memory"}, "failed", "envtune doctor && "),
        ({"exit": 17, "message": "never one of ours"}, "failed", ""),
    ],
)
def test_how_a_start_ended_is_told_with_what_to_do(
    run: Run, outcome: dict[str, object], state: str, after: str
) -> None:
    _trains(run)
    _record(run.folder, outcome=outcome)
    told, text, next_ = _seen(run)
    assert (told, str(outcome["message"]) in text) == (state, True)
    assert after in next_


def test_a_start_that_was_killed_has_said_nothing(run: Run) -> None:
    _trains(run)
    state, text, after = _seen(run)
    assert (state, text) == ("killed", "was not ended by itself at step 4 of 10")
    assert "goes on from its checkpoint" in after


def test_a_finished_run_is_done_and_served_while_its_server_lives(run: Run) -> None:
    _record(run.folder, stages={"train": {"outcome": "done", "artifact": "adapter"}},
            outcome={"exit": 0, "message": "done"})  # fmt: skip
    (run.folder / COMPLETE).write_text("{}")
    assert _seen(run)[:2] == ("done", f"is done: {run.folder}/adapter")
    health.announce(run.folder, "http://127.0.0.1:8000")
    state, text, after = _seen(run)
    assert (state, "served at http://127.0.0.1:8000" in text) == ("serving", True)
    assert after == "envtune smoke-test tiny-run1"
    gone = {"url": "http://127.0.0.1:8000", "stamp": f"{os.getpid()}:1"}
    (run.folder / "server.json").write_text(json.dumps(gone))
    assert _seen(run)[0] == "done"


def _printed(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    run: Run,
    *words: str,
    as_json: bool,
) -> str:
    monkeypatch.chdir(run.folder.parents[1])
    args = argparse.Namespace(words=list(words), json=as_json)
    assert status.status(args) == (Exit.DONE, "")
    return capsys.readouterr().out


def test_status_shows_step_loss_time_left_and_what_is_saved(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _trains(run)
    with Lease(run.folder):
        text = _printed(capsys, monkeypatch, run, as_json=False)
        told = json.loads(_printed(capsys, monkeypatch, run, "tiny-run1", as_json=True))
    assert "state   training: is at work at step 4 of 10\n" in text
    assert "step    4 of 10, loss 3.0000, about 0:12 left\n" in text
    assert told["state"] == "training"
    assert (told["step"], told["max_steps"], told["loss"], told["seconds_left"]) == (4, 10, 3.0, 12)


def test_status_without_a_run_tells_how_to_come_to_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert status.status(argparse.Namespace(words=[], json=True)) == (Exit.DONE, "")
    told = json.loads(capsys.readouterr().out)
    assert (told["state"], told["next"].startswith("envtune check && ")) == ("none", True)
    assert not list(tmp_path.iterdir())


def test_the_welcome_says_the_same(run: Run) -> None:
    _trains(run)
    with Lease(run.folder):
        page = welcome.text(run.folder.parent)
    assert "envtune: tiny-run1 is at work at step 4 of 10\n" in page
    assert "what to train is set" in welcome.text(run.folder / "none", set_up=True)
    assert "what to train is set" not in welcome.text(run.folder / "none")

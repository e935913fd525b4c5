"""What a run may cost, when a restart gives up, and what a shell is told: rules and files."""

import json
import math
import os
import random
import re
import shutil
import sys
import time
from pathlib import Path

import pytest

from envtune.artifacts.checkpoints import commit
from envtune.cli import output, welcome
from envtune.errors import Exit
from envtune.runs.contents import BUDGET, RECORD
from envtune.runs.folders import Run
from envtune.settings import sources
from envtune.supervise import budget, finish, restarts, signals
from envtune.supervise.budget import Budget, Limits, Spent
from envtune.supervise.restarts import Starts
from envtune.supervise.signals import StopSignals
from envtune.supervise.stage import Context, Ended, stop_exit, stopped
from tests import runpod_standin
from tests.unit.builders import run_config

# --- limits ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "spent", "left", "name"),
    [
        (Limits(hours=2), Spent(seconds=1800), 5400, "SFT_MAX_HOURS"),
        (Limits(usd=3, price=1.5), Spent(usd=1.5), 3600, "SFT_MAX_USD"),
        (Limits(hours=2, usd=3, price=6), Spent(), 1800, "SFT_MAX_USD"),
        (Limits(hours=2, usd=30, price=6), Spent(), 7200, "SFT_MAX_HOURS"),
        (Limits(hours=1), Spent(seconds=3601), -1, "SFT_MAX_HOURS"),
    ],
)
def test_the_first_limit_counts(limits: Limits, spent: Spent, left: float, name: str) -> None:
    seconds, text = limits.left(spent)
    assert seconds == pytest.approx(left)
    assert text.startswith(name)


def _context(folder: Path, environ: dict[str, str] | None = None, **own: object) -> Context:
    folder.mkdir(exist_ok=True)
    return Context(
        Run("tiny-run1", folder, folder / "logs", "key"),
        run_config(**own),
        environ or {},
        (),
        StopSignals(),
    )


class Clock:
    """In the place of the module `time`: seconds that a test lets pass."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_every_start_is_counted_and_the_last_one_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(budget, "time", clock)
    monkeypatch.setattr(signals, "time", clock)
    for number in (1, 2):
        context = _context(tmp_path, SFT_MAX_HOURS=4, SFT_USD_PER_HOUR=2)
        with Budget(context):
            assert not context.stops.asked
            clock.now += 5400
        spent = budget.read(tmp_path)
        assert (spent.starts, spent.seconds, spent.usd) == (number, 5400 * number, 3 * number)
    context = _context(tmp_path, SFT_MAX_HOURS=4)
    with Budget(context):
        clock.now += 3599
        assert not context.stops.asked
        clock.now += 1
        assert context.stops.asked
        end = stopped(context, "step 3 of 9")
    assert end.exit == Exit.BUDGET
    assert end.message.startswith("SFT_MAX_HOURS: 4 hours are used up; stopped at step 3")
    with pytest.raises(Ended) as ended, Budget(_context(tmp_path, SFT_MAX_HOURS=4)):
        pass
    assert ended.value.exit == Exit.BUDGET
    assert "over 3 starts; raise it to go on" in ended.value.message


def test_a_raised_limit_goes_on_and_no_limit_counts_nothing(tmp_path: Path) -> None:
    with Budget(_context(tmp_path, SFT_MAX_HOURS=1)) as counted:
        assert counted.context.stops.limit > time.monotonic() + 3000
    with Budget(_context(tmp_path / "free")) as free:
        assert free.context.stops.limit == math.inf
    assert not list((tmp_path / "free").iterdir())


def test_a_count_that_cannot_be_written_at_the_end_loses_no_reason(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Ended) as ended, Budget(_context(folder, SFT_MAX_HOURS=1)):
        shutil.rmtree(folder)
        raise Ended(Exit.DATA, "row 7")
    assert ended.value.message == "row 7"


def test_dollars_are_counted_by_the_price_that_runpod_tells(tmp_path: Path) -> None:
    with runpod_standin.running(price=2.0) as runpod:
        context = _context(tmp_path, runpod.environ, SFT_MAX_USD=1)
        with Budget(context):
            assert context.stops.limit - time.monotonic() == pytest.approx(1800, abs=60)
        assert runpod.asked == ["pod"]
        with Budget(_context(tmp_path, runpod.environ, SFT_MAX_USD=1, SFT_USD_PER_HOUR=4)):
            assert runpod.asked == ["pod"]


@pytest.mark.parametrize(
    ("fault", "price", "exit_"),
    [
        ("401", 1.0, Exit.ACCESS),
        ("503", 1.0, Exit.NETWORK),
        ("cut", 1.0, Exit.NETWORK),
        ("[]", 1.0, Exit.NETWORK),
        ("", "a lot", Exit.NETWORK),
        ("", None, Exit.CONFIG),
    ],
)
def test_a_price_that_nobody_tells_ends_the_start(
    fault: str, price: float | str | None, exit_: Exit, tmp_path: Path
) -> None:
    with runpod_standin.running(price=price, faults=[fault]) as runpod:
        context = _context(tmp_path, runpod.environ, SFT_MAX_USD=1)
        with pytest.raises(Ended) as ended, Budget(context):
            pass
    assert ended.value.exit == exit_
    assert "set SFT_USD_PER_HOUR to what an hour costs" in ended.value.message
    assert runpod_standin.KEY not in ended.value.message


def test_who_stopped_first_decides_what_the_stop_is() -> None:
    now = time.monotonic()
    by_limit = StopSignals(received=[15], first=now, limit=now - 1)
    by_hand = StopSignals(received=[15], first=now - 2, limit=now - 1)
    assert (by_limit.exhausted, by_hand.exhausted) == (True, False)
    assert StopSignals(limit=now - 1).deadline() > now + 200  # nobody outside counts
    assert by_limit.deadline() < now + 25


def test_the_exit_of_a_stop_tells_who_asked(tmp_path: Path) -> None:
    context = _context(tmp_path)
    context.stops.received.append(15)
    context.stops.first = time.monotonic()
    assert stop_exit(context) == Exit.STOPPED
    context.stops.limit = context.stops.first - 1
    assert stop_exit(context) == Exit.BUDGET


# --- restarts ----------------------------------------------------------------------------

TRIES = {
    Exit.CONFIG: 1, Exit.DATA: 1, Exit.ACCESS: 1, Exit.MEMORY: 1, Exit.ARTIFACT: 1,
    Exit.BUG: 2, Exit.DISK: 5, Exit.NETWORK: 5, Exit.HARDWARE: 5,
}  # fmt: skip


@pytest.mark.parametrize("exit_", Exit)
def test_a_failure_is_tried_as_often_as_it_is_worth(exit_: Exit) -> None:
    last: restarts.Outcome = {}
    starts = 0
    while starts < 20 and not restarts.is_open(last):
        last = restarts.outcome(last, exit_, "why", "checkpoint-3")
        starts += 1
    assert starts == TRIES.get(exit_, 20)


def test_progress_and_another_failure_begin_the_count_again(dice: random.Random) -> None:
    last: restarts.Outcome = {}
    for step in range(50):
        exit_ = dice.choice([Exit.DISK, Exit.NETWORK, Exit.HARDWARE])
        last = restarts.outcome(last, exit_, "why", f"checkpoint-{step}")
        assert not restarts.is_open(last)
    for exit_ in [Exit.DISK, Exit.NETWORK] * 5:
        last = restarts.outcome(last, exit_, "why", "")
        assert not restarts.is_open(last)


def test_each_try_of_what_may_pass_waits_twice_as_long() -> None:
    last, pauses = restarts.Outcome(), []
    while not restarts.is_open(last):
        last = restarts.outcome(last, Exit.NETWORK, "why", "")
        pauses.append(restarts.pause(last))
    assert pauses == [10, 20, 40, 80, 160]
    assert restarts.pause(restarts.outcome({}, Exit.DATA, "why", "")) == 0


def _starts(folder: Path, **environ: str) -> Starts:
    return Starts(folder, sources.read((), environ))


def test_a_start_that_tells_no_end_was_killed_and_five_of_them_are_enough(tmp_path: Path) -> None:
    for _ in range(5):
        assert _starts(tmp_path).begin() is None
    last = _starts(tmp_path).begin()
    assert last is not None
    assert (last["exit"], last["times"]) == (Exit.HARDWARE, 5)
    checkpoint = tmp_path / "checkpoints" / "checkpoint-2"
    checkpoint.mkdir(parents=True)
    commit(checkpoint, 2)
    for _ in range(5):
        assert _starts(tmp_path).begin() is None
    assert _starts(tmp_path).begin() is not None


def test_an_end_that_is_told_takes_the_place_of_a_kill(tmp_path: Path) -> None:
    for times in range(1, 6):
        assert _starts(tmp_path).begin() is None
        assert _starts(tmp_path).end(Exit.DISK, "full")["times"] == times
    told = _starts(tmp_path).begin()
    assert told is not None
    assert (told["exit"], told["message"]) == (Exit.DISK, "full")
    _starts(tmp_path).end(Exit.STOPPED, "stopped by hand")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("change", [{"RUNPOD_POD_ID": "b"}, {"SFT_PUSH_TO": "s3://b/c"}])
def test_another_container_and_other_settings_are_tried_anew(
    change: dict[str, str], tmp_path: Path
) -> None:
    before = {"RUNPOD_POD_ID": "a", "SFT_PUSH_TO": "s3://b/a"}
    _starts(tmp_path, **before).begin()
    _starts(tmp_path, **before).end(Exit.ACCESS, "no")
    assert _starts(tmp_path, **before).begin() is not None
    assert _starts(tmp_path, **{**before, **change}).begin() is None


def test_a_refusal_before_the_beginning_is_looked_at_again(tmp_path: Path) -> None:
    assert restarts.is_open(_starts(tmp_path).end(Exit.CONFIG, "another process trains it"))
    assert not list(tmp_path.iterdir())
    assert _starts(tmp_path).begin() is None


def test_what_cannot_be_counted_is_not_tried_for_ever(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert restarts.is_open(_starts(tmp_path / "file" / "outputs").end(Exit.DISK, "full"))


@pytest.mark.parametrize(
    ("exit_", "on_finish", "on_fail", "given_up", "wanted"),
    [
        (Exit.DONE, "stop", "idle", "idle", "stop"),
        (Exit.DATA, "stop", None, "exit", "exit"),
        (Exit.DATA, "exit", None, "stop", "stop"),
        (Exit.DATA, "stop", "idle", "stop", "idle"),
        (Exit.BUDGET, "exit", "terminate", "stop", "terminate"),
        (Exit.STOPPED, "stop", "stop", "stop", "exit"),
        (Exit.INTERRUPTED, "stop", "stop", "stop", "exit"),
    ],
)
def test_what_is_done_at_the_end(
    exit_: Exit, on_finish: str, on_fail: str | None, given_up: str, wanted: str
) -> None:
    assert finish.action(exit_, on_finish, on_fail, given_up=given_up) == wanted


# --- what a shell is told ----------------------------------------------------------------


def _run(outputs: Path, **record: object) -> Path:
    folder = outputs / "tiny-run1"
    folder.mkdir(parents=True)
    first = {"name": "tiny-run1", "prefix": "tiny", "number": 1, "key": "k", "logs": "/logs/tiny"}
    (folder / RECORD).write_text(json.dumps({**first, **record}))
    (outputs / "latest.txt").write_text("tiny-run1\n")
    return folder


def _told(page: str) -> list[str]:
    """How the newest run stands and what comes next, on the page for shells."""
    return [line for line in page.splitlines() if line.startswith(("envtune: ", "next: "))]


def test_a_shell_is_told_that_there_is_no_run(tmp_path: Path) -> None:
    assert "no run yet" in welcome.text(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at_the_root", [True, False])
def test_what_a_shell_is_told_to_call_and_to_read_is_there(
    at_the_root: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(sys.prefix).parent
    monkeypatch.chdir(root if at_the_root else tmp_path)
    prefix = "" if at_the_root else f"{root}/"
    page = welcome.text(tmp_path)
    _, after = _told(page)
    assert after == f"next: envtune check && {prefix}scripts/autorun.sh"
    assert os.access(after.split()[-1], os.X_OK)
    assert f" {prefix}docs/settings.md " in page
    assert f"in {root}\n" in page
    there = set(re.findall(r"(?:scripts|examples)/[\w.]*", page))
    assert len(there) == 4, there
    assert all((root / name).exists() for name in there)
    assert f"Read {prefix}README.md " in output.usage("")
    assert all(Path(f"{prefix}{name}").exists() for name in ("docs/settings.md", "README.md"))


def test_whoever_starts_the_image_with_nothing_set_is_shown_docker() -> None:
    for flavor, flags in ("cuda", "--gpus all --shm-size=8g"), ("cpu", "--shm-size=1g"):
        assert f"  docker run {flags} --stop-timeout 60 -v" in output.usage(flavor)
    assert "docker" not in output.usage("")


STATES = [
    ({}, "was not ended by itself at step 4 of 9", "goes on from its checkpoint"),
    ({"exit": 143, "message": "stopped"}, "ended with 143 at step 4 of 9: stopped", "goes on"),
    ({"exit": 3, "message": "bad rows"}, "failed with 3: bad rows", "change what it names"),
    ({"exit": 7, "message": "SFT_MAX_HOURS: 2"}, "has used 1.50 hours: SFT_MAX", "raise the limit"),
]


@pytest.mark.parametrize(("last", "state", "after"), STATES)
def test_a_shell_is_told_the_truth_and_the_next_command(
    last: dict[str, object], state: str, after: str, tmp_path: Path
) -> None:
    folder = _run(tmp_path, **({"outcome": last} if last else {}))
    (folder / "outcome.json").write_text('{"step": 4, "max_steps": 9, "state": "training"}')
    (folder / BUDGET).write_text('{"seconds": 5400, "usd": 0.0, "starts": 2}')
    first, second = _told(welcome.text(tmp_path))
    assert state in first
    assert after in second


def test_a_finished_and_a_working_run_are_told_apart(tmp_path: Path) -> None:
    folder = _run(tmp_path, stages={"train": {"artifact": "adapter"}})
    (folder / ".complete").write_text("{}")
    assert f"is done: {folder}/adapter" in welcome.text(tmp_path)
    (folder / "lease").write_text('{"stamp": "1:1"}')
    (folder / "outcome.json").write_text('{"state": "training", "owner": "1:1"}')
    assert "is at work\nnext: tail -f /logs/tiny/train/run.log" in welcome.text(tmp_path)

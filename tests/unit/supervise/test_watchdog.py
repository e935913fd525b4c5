"""When a training hangs, and who holds it up, by what its processes tell."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from envtune.channel import EVALUATION, SAVE, STEP, Outcome
from envtune.supervise import stacks
from envtune.supervise.stacks import Frame, Rank, _frames, culprit
from envtune.supervise.watchdog import Watchdog

TRAINING = Outcome(state="training", doing=STEP, step_seconds=0.5, step=7, max_steps=38)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def looked(
    outcome: Outcome | None, seconds: int, *, stopped: bool = False, factor: float = 10
) -> int:
    """After how many seconds of looking once a second it hangs; 0 for never."""
    clock = Clock()
    watchdog = Watchdog(factor, 60.0, clock)
    for second in range(seconds):
        clock.now += 1.0
        if watchdog.look(outcome, stopped=stopped):
            return second
    return 0


@pytest.mark.parametrize(
    ("outcome", "seconds"),
    [
        (TRAINING, 61),
        (replace(TRAINING, step_seconds=30.0), 301),
        (replace(TRAINING, step_seconds=0.0), 721),  # the first step
        (replace(TRAINING, doing=EVALUATION), 721),
        (replace(TRAINING, doing=SAVE), 721),
        (replace(TRAINING, state="model"), 721),
        (None, 720),
        (replace(TRAINING, state="data"), 0),
        (replace(TRAINING, state="finished"), 0),
    ],
)
def test_what_has_a_measure_may_take_ten_times_as_long_and_the_rest_an_own_line(
    outcome: Outcome | None, seconds: int
) -> None:
    assert looked(outcome, 2000) == seconds


def test_a_process_that_is_stopped_is_found_whatever_it_was_at() -> None:
    for state in ("starting", "data", "model", "training"):
        assert looked(replace(TRAINING, state=state, step_seconds=0.0), 100, stopped=True) == 61


def test_a_training_that_goes_on_never_hangs_however_the_looks_fall(seed: int) -> None:
    dice, clock = Random(seed), Clock()
    watchdog = Watchdog(10, 60.0, clock)
    for beat in range(400):
        for _ in range(dice.randrange(1, 10)):
            clock.now += dice.uniform(0.5, 5.0)
            assert watchdog.look(replace(TRAINING, beats=beat), stopped=False) is None


def test_time_in_which_nobody_looked_does_not_count() -> None:
    clock = Clock()
    watchdog = Watchdog(10, 60.0, clock)
    for pause in (1.0, 40.0, 3600.0, 86400.0, 1.0):
        clock.now += pause
        assert watchdog.look(TRAINING, stopped=False) is None


@pytest.mark.parametrize(
    ("ranks", "told"),
    [
        ([("S", "all_reduce", "/x/site-packages/torch/distributed/distributed_c10d.py"),
          ("S", "wait", "/home/me/loader.py")], "rank 1 (process 101) is in `wait` (/home/me/loader.py:3)"),
        ([("S", "_engine_run_backward", "/x/site-packages/torch/autograd/graph.py"),
          ("T", "forward", "/m.py")], "rank 1 (process 101) is stopped, as by SIGSTOP, in `forward` (/m.py:3)"),
        ([("D", "read", "/m.py"), ("S", "all_reduce", "/torch/distributed/x.py")],
         "rank 0 (process 100) waits for a device or a volume, in `read` (/m.py:3)"),
        ([("S", "all_reduce", "/torch/distributed/x.py")] * 2, "each of 2 ranks waits for another, as rank 0 "
         "(process 100) is in `all_reduce` (/torch/distributed/x.py:3)"),
        ([("S", "sleep", "/m.py"), ("T", "f", "/m.py")], "rank 1 (process 101) is stopped, as by SIGSTOP, in `f` (/m.py:3)"),
    ],
)  # fmt: skip
def test_the_rank_that_the_others_wait_for_is_named(
    ranks: list[tuple[str, str, str]], told: str
) -> None:
    found = [
        Rank(n, 100 + n, state, (Frame(name, file, 3),))
        for n, (state, name, file) in enumerate(ranks)
    ]
    assert culprit(found) == told


SPIED = """Process 7: python -m envtune.engine.train
Python v3.11.7 (/usr/bin/python3.11)

Thread 7 (idle): "MainThread"
    wait (/usr/lib/python3.11/threading.py:320)
    _try_get_data (/x/site-packages/torch/utils/data/dataloader.py:1284)
    train (/x/train.py:9)
Thread 9 (idle): "Thread-1"
    run (/usr/lib/python3.11/threading.py:982)
Process 8: python -m envtune.engine.train
Python v3.11.7 (/usr/bin/python3.11)

Thread 8 (idle): "MainThread"
    __getitem__ (/data/rows.py:12)
    _worker_loop (/x/site-packages/torch/utils/data/_utils/worker.py:349)
"""
OWN = """Thread 0x00007f19a86af640 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 320 in wait

Current thread 0x00007f19a86af740 (most recent call first):
  File "/data/rows.py", line 12 in __getitem__
  File "/x/train.py", line 9 in train
"""


def test_the_stack_of_a_loaders_process_is_told_where_its_rank_waits_for_it() -> None:
    assert _frames(SPIED, 7)[0] == Frame("__getitem__", "/data/rows.py", 12)


def test_what_a_rank_writes_of_itself_is_read_as_well() -> None:
    assert _frames(OWN, 7)[0] == Frame("__getitem__", "/data/rows.py", 12)


CHILD = """
import faulthandler, os, signal, sys, time
stream = open(sys.argv[1], "w")
start = open("/proc/self/stat").read().rsplit(")", 1)[1].split()[19]
stream.write(f"{os.getpid()}:{start}\\n")
stream.flush()
faulthandler.register(signal.SIGUSR1, stream, all_threads=True)
def hangs():
    print("ready", flush=True)
    time.sleep(60)
hangs()
"""


@pytest.mark.parametrize("spy", [True, False])
@pytest.mark.parametrize("stop", [True, False])
def test_a_process_that_hangs_is_looked_at_by_py_spy_or_tells_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, spy: bool, stop: bool
) -> None:
    (tmp_path / ".ranks").mkdir()
    if not spy:
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    command = ["python3", "-c", CHILD, str(tmp_path / ".ranks" / "0")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        if stop:
            child.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, child.pid, os.WSTOPPED)
        try:
            told = stacks.tell(tmp_path)
        finally:
            child.kill()
    assert f"process {child.pid}" in told
    assert ("is stopped, as by SIGSTOP" in told) == stop
    if spy or not stop:
        assert "`hangs` (<string>:" in told
        assert "hangs" in (tmp_path / "stacks" / "rank0.txt").read_text()


@pytest.mark.parametrize("told", ["", "Error: Permission denied\n", "Thread\nThread 7"])
def test_no_stack_is_no_failure(told: str) -> None:
    assert _frames(told, 7) == ()
    assert str(Rank(0, 7, "S")) == "rank 0 (process 7) tells nothing of where it is"

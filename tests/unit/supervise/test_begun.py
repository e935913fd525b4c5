"""A child that imports and waits. What waits here is a script that stands in for the trainer."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from envtune import channel
from envtune.render import launch
from envtune.render.launch import LaunchPlan
from envtune.supervise import process
from envtune.supervise.signals import StopSignals

# Has a child of its own in another session, as imports may; writes what it is told and where.
SCRIPT = """#!{python}
import os, subprocess, sys
below = subprocess.Popen(["sleep", "600"], start_new_session=True)
open("begun", "a").write(f"{{os.getpid()}} {{below.pid}}\\n")
said = sys.stdin.read()
open("told", "a").write(f"{{os.getpid()}} {{said}}\\n")
below.kill()
"""


@pytest.fixture
def plan(tmp_path: Path) -> LaunchPlan:
    script = tmp_path / "python"
    script.write_text(SCRIPT.format(python=sys.executable))
    script.chmod(0o755)
    argv = (str(script), "-m", launch.TRAINER, "config/axolotl.yaml")
    return LaunchPlan(argv, {"PATH": "/usr/bin:/bin", "SAME": "1"}, tmp_path)


class Silent:
    """Wants nothing of its child."""

    def line(self, text: str) -> None:
        pass

    def clean(self, text: str) -> str:
        return text

    def tick(self) -> None:
        pass

    def stop(self) -> bool:
        return False

    def done(self) -> bool:
        return False


def _run(plan: LaunchPlan, begun: process.Begun | None) -> int:
    return process.run(plan, plan.cwd / "log", Silent(), StopSignals(), begun)


def _started(plan: LaunchPlan, count: int = 1) -> list[list[int]]:
    """The pids of each that has begun, with those below it."""
    path, deadline = plan.cwd / "begun", time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [[int(word) for word in line.split()] for line in path.read_text().splitlines()]


def _gone(pids: list[int], patience: float = 60) -> bool:
    deadline = time.monotonic() + patience
    while any(map(channel.process_stamp, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(channel.process_stamp, pids))


def test_what_was_decided_since_reaches_the_child_that_began(plan: LaunchPlan) -> None:
    final = replace(plan, env={**plan.env, channel.RESUME: "checkpoints/checkpoint-2"})
    with process.ahead(launch.ahead(plan)) as begun:
        ((pid, _),) = _started(plan)
        assert _run(final, begun) == 0
    told = (plan.cwd / "told").read_text()
    assert told == f'{pid} {{"ENVTUNE_RESUME": "checkpoints/checkpoint-2"}}\n'


def test_another_environment_starts_another_child_and_leaves_none_waiting(
    plan: LaunchPlan,
) -> None:
    final = replace(plan, env={**plan.env, "SAME": "2"})
    with process.ahead(launch.ahead(plan)) as begun:
        (first,) = _started(plan)
        assert _run(final, begun) == 0
        assert _gone(first, 0)
    assert len(_started(plan, 2)) == 2
    assert not (plan.cwd / "told").read_text().startswith(str(first[0]))


def test_one_that_died_is_started_anew_and_one_that_has_run_is_not_used_twice(
    plan: LaunchPlan,
) -> None:
    with process.ahead(launch.ahead(plan)) as begun:
        ((pid, below),) = _started(plan)
        os.kill(below, 9)
        os.kill(pid, 9)
        assert begun is not None
        begun.child.wait()
        assert _run(plan, begun) == _run(plan, begun) == 0
    assert len(_started(plan, 3)) == 3


def test_another_child_that_ends_meanwhile_takes_nothing_of_it_along(plan: LaunchPlan) -> None:
    other = LaunchPlan(("/bin/sleep", "0.2"), {}, plan.cwd)
    with process.ahead(launch.ahead(plan)) as begun:
        process.quietly(other, plan.cwd / "log")
        (pids,) = _started(plan)
        assert all(map(channel.process_stamp, pids))
        assert _run(plan, begun) == 0


@pytest.mark.parametrize("fault", [None, RuntimeError, KeyboardInterrupt])
def test_whatever_ends_the_block_leaves_nothing_that_descends_from_it(
    plan: LaunchPlan, fault: type[BaseException] | None
) -> None:
    def block() -> list[int]:
        with process.ahead(launch.ahead(plan)):
            (pids,) = _started(plan)
            (plan.cwd / "pids").write_text(" ".join(map(str, pids)))
            if fault:
                raise fault
            return pids

    _swallowing(block, fault)
    assert _gone([int(word) for word in (plan.cwd / "pids").read_text().split()], 0)
    assert not (plan.cwd / "told").exists()


def _swallowing(block: Callable[[], object], fault: type[BaseException] | None) -> None:
    if fault is None:
        block()
        return
    with pytest.raises(fault):
        block()


def test_a_supervisor_that_is_killed_leaves_a_child_that_hears_of_it(plan: LaunchPlan) -> None:
    code = (
        "import os, pathlib\n"
        "from envtune.render import launch\n"
        "from envtune.supervise import process\n"
        f"plan = launch.LaunchPlan({plan.argv!r}, {dict(plan.env)!r}, pathlib.Path({str(plan.cwd)!r}))\n"
        "begun = process.Begun(launch.ahead(plan))\n"
        "while not (plan.cwd / 'begun').exists(): pass\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    (pids,) = _started(plan)
    assert _gone(pids)
    assert (plan.cwd / "told").read_text() == f"{pids[0]} \n"  # nothing: it was not wanted

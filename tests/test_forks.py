"""A forked training is the real one: what the tests that fork theirs stand on."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from envtune import channel
from tests import forks
from tests.harness import Entrypoint, clean_environ, execute, losses, metrics, read


def test_a_forked_rerun_has_the_yaml_the_losses_and_the_adapter_of_the_real_run(
    lora: Path, settings: dict[str, str], forking: dict[str, str], shared: Path, tmp_path: Path
) -> None:
    shutil.copytree(lora.parent, tmp_path / "outputs", symlinks=True)
    again = Entrypoint(tmp_path, settings | forking).train(SFT_RERUN="true")
    assert again.name == lora.name.replace("run1", "run2")
    assert any(line.endswith(f"in {again}") for line in forks.told(shared) if " served by " in line)
    for name in ("config/axolotl.yaml", "adapter/adapter_model.safetensors"):
        assert (lora / name).read_bytes() == (again / name).read_bytes(), name
    assert losses(again) == losses(lora)
    for name in ("tokens", "learning_rate", "epoch"):
        assert [m.get(name) for m in metrics(again)] == [m.get(name) for m in metrics(lora)]
    (mine, theirs) = (
        sorted(str(p.relative_to(run)) for p in run.rglob("*") if "data" not in p.parts)
        for run in (again, lora)
    )
    assert mine == theirs
    assert read(again / "outcome.json").keys() == read(lora / "outcome.json").keys()


@pytest.fixture
def light(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A server that has imported next to nothing."""
    with forks.server(tmp_path, ("envtune.engine.export.export",)) as environ:
        yield environ


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "envtune.engine.export.export", *map(str, arguments)]


def _environ(light: dict[str, str], **more: str) -> dict[str, str]:
    plain = {"PYTHONUNBUFFERED": "1", **light, **more}
    return clean_environ(**{"PYTHONSAFEPATH": "1", **plain})


def test_a_fork_says_what_a_process_of_its_own_says_and_ends_with_its_code(
    light: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "order.json").write_text('{"adapter": "none"}')
    ends = [
        execute(_command("order.json"), tmp_path, environ)
        for environ in (_environ(light), clean_environ(PYTHONUNBUFFERED="1"))
    ]
    assert ends[0].code == ends[1].code != 0
    assert ends[0].err.splitlines()[-1] == ends[1].err.splitlines()[-1]
    assert len(_forked(tmp_path)) == 1


def test_what_was_imported_with_another_environment_is_not_served(
    light: dict[str, str], tmp_path: Path
) -> None:
    environ = _environ(light, OMP_NUM_THREADS="2", HTTPS_PROXY="http://127.0.0.1:9")
    execute(_command("order.json"), tmp_path, environ)
    assert forks.told(tmp_path) == [
        "envtune.engine.export.export not served: HTTPS_PROXY OMP_NUM_THREADS"
    ]


def _forked(root: Path) -> list[int]:
    """The processes that have served, or still do."""
    return [int(line.split()[3]) for line in forks.told(root) if " served by " in line]


def _until(reached: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def _full_pipe() -> Iterator[int]:
    """The end of a pipe at which whoever writes waits."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writes, b"x" * 4096)
    os.set_blocking(writes, True)
    try:
        yield writes
    finally:
        os.close(reads)
        os.close(writes)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_what_ends_the_one_ends_the_other(
    light: dict[str, str], tmp_path: Path, number: int
) -> None:
    """It fails, and waits: what it says of that goes into a pipe that is full and nobody reads."""
    command, environ = _command("order.json"), _environ(light)
    with _full_pipe() as full:
        asked = subprocess.Popen(command, env=environ, cwd=tmp_path, stderr=full)
        _until(lambda: _forked(tmp_path))
        [pid] = _forked(tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):  # else nothing is left to be ended
            asked.wait(1)
        asked.send_signal(number)
        assert asked.wait(60) == -number
    _until(lambda: channel.process_stamp(pid) is None)


def test_the_server_ends_when_nobody_is_left(tmp_path: Path) -> None:
    with forks.server(tmp_path, ("json",)), forks.server(tmp_path, ("json",)):
        assert forks.is_there(tmp_path)
    _until(lambda: not forks.is_there(tmp_path))

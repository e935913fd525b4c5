"""A container that a platform starts again and again: a failure is not paid for twice.

The start is process 1 of a PID namespace of its own, as in a container.
"""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import runpod_standin
from tests.harness import AUTORUN, Entrypoint, Result, clean_environ, execute, read

AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
LINE = "training failed at step 3: the data could not be read: row 7 (log: run.log)"

pytestmark = pytest.mark.skipif(
    subprocess.run([*AS_PROCESS_1, "true"], capture_output=True, check=False).returncode != 0,
    reason="no PID namespace can be made here",
)


@pytest.fixture
def failed(entrypoint: Entrypoint) -> Path:
    """The folder of a run whose last start has failed for good."""
    environ = clean_environ(**entrypoint.settings)
    result = execute(["envtune", "configure"], entrypoint.folder, environ | _on_path(environ))
    assert result.code == 0, result.err
    folder = Path(result.out.strip())
    outcome = {"exit": 3, "message": LINE, "at": None, "times": 1}
    record = read(folder / "run.json") | {"outcome": outcome}
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def _on_path(environ: dict[str, str]) -> dict[str, str]:
    return {"PATH": f"{AUTORUN.parents[1]}/.venv/bin:{environ['PATH']}"}


@pytest.fixture
def restart(entrypoint: Entrypoint) -> Callable[..., Result]:
    def start(**more: str) -> Result:
        environ = clean_environ(**entrypoint.settings, **more)
        return execute([*AS_PROCESS_1, str(AUTORUN)], entrypoint.folder, environ)

    return start


def test_a_restart_says_the_same_line_and_starts_nothing(
    failed: Path, restart: Callable[..., Result], tmp_path: Path
) -> None:
    told = tmp_path / "told"
    for _ in range(2):
        result = restart(TERMINATION_LOG_FILE=str(told))
        assert result.code == 3, result.err
        assert told.read_text() == LINE
        assert "is not tried again by a restart" in result.err
    assert not (failed / "outcome.json").exists()
    assert not list(tmp_path.glob("logs/*/train/run.log"))


def test_a_restart_after_a_failure_stops_the_pod(
    failed: Path, restart: Callable[..., Result], tmp_path: Path
) -> None:
    with runpod_standin.running() as runpod:
        place = {"SFT_OUTPUTS_DIR": str(failed.parent), "SFT_LOGS_DIR": str(tmp_path / "logs")}
        result = restart(SFT_ON_FAIL="stop", **place, **runpod.environ)
        assert result.code == 3, result.err
        assert runpod.status == "EXITED"


def test_a_limit_that_is_used_up_is_told_before_anything_is_loaded(
    failed: Path, entrypoint: Entrypoint
) -> None:
    (failed / "budget.json").write_text('{"seconds": 7200, "usd": 0, "starts": 3}')
    result = entrypoint.run(SFT_MAX_HOURS="2")
    assert result.code == 7
    assert "SFT_MAX_HOURS: 2 hours are used up over 3 starts; raise it to go on" in result.err
    assert not (failed / "outcome.json").exists()


def test_process_1_lets_in_only_whom_a_variable_names(
    failed: Path, restart: Callable[..., Result]
) -> None:
    assert "is not installed" not in restart().err
    told = restart(PUBLIC_KEY="ssh-ed25519 AAAA me", JUPYTER_PASSWORD="long-enough-password").err
    assert "JUPYTER_PASSWORD is set and jupyter is not installed: nothing listens" in told
    assert "long-enough-password" not in told

"""One training in a place as odd as pods can be, and what must hold there all the same."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import AUTORUN, DEFAULTS, clean_environ, metrics, read


@pytest.fixture(scope="module")
def odd(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]
) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """No HOME, a job of the caller's beside it, steps that are not all logged, a link."""
    folder = tmp_path_factory.mktemp("odd")
    (folder / "real").mkdir()
    (folder / "outputs").symlink_to("real")
    more = {"HOME": "", "AXOLOTL_MAX_STEPS": "7", "AXOLOTL_LOGGING_STEPS": "5"}
    script = f"sleep infinity > /dev/null 2>&1 & echo $!; exec {AUTORUN}"
    started = subprocess.Popen(
        ["bash", "-c", script], cwd=folder, env=clean_environ(**{**DEFAULTS, **settings, **more}),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdout is not None
    job = int(started.stdout.readline())
    error = started.stderr.read() if started.stderr else ""
    assert started.wait() == 0, error[-3000:]
    alive = Path(f"/proc/{job}").exists()
    subprocess.run(["kill", str(job)], check=False)
    (folder / "job").write_text(str(alive))
    (run,) = (folder / "real").glob("*-run1")
    yield run, started


def test_a_job_of_the_callers_is_left_alone(odd: tuple[Path, object]) -> None:
    assert (odd[0].parents[1] / "job").read_text() == "True"


def test_caches_go_beside_the_runs_where_there_is_no_home(odd: tuple[Path, object]) -> None:
    assert (odd[0].parent / ".home").is_dir()
    assert not list(odd[0].glob("~"))


def test_the_report_counts_the_steps_that_were_not_logged_too(odd: tuple[Path, object]) -> None:
    report = read(odd[0] / "report.json")
    assert report["steps"] == 7
    assert report["total_tokens"] > metrics(odd[0])[-1]["tokens"]

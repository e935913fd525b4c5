"""Trackers, the real ones where they can be had: a dead one costs no run and no time."""

import base64
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from envtune.supervise import trackers
from tests.harness import (
    Entrypoint,
    Quiet,
    Result,
    clean_environ,
    free_port,
    metrics,
    read,
    serving,
)
from tests.unit.builders import run_config

KEY = "wandb0123456789abcdef0123456789abcdef0123"
WANDB = {"use_wandb": True}
MLFLOW = {"use_mlflow": True}


class Server:
    """A real MLflow server with a database of its own."""

    def __init__(self, folder: Path) -> None:
        self.url = f"http://127.0.0.1:{free_port()}"
        self.log = (folder / "server.log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1",
             "--port", self.url.rsplit(":", 1)[1],
             "--backend-store-uri", f"sqlite:///{folder / 'server.db'}"],
            env=clean_environ(), cwd=folder, stdout=self.log, stderr=self.log,
            start_new_session=True,
        )  # fmt: skip

    def wait(self) -> None:
        """Until it has answered what a start asks it first, which takes it longer that once."""
        asked = "/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.url}{asked}", timeout=60):
                    return
            except OSError:
                assert self.process.poll() is None, Path(self.log.name).read_text()
                time.sleep(0.2)
        pytest.fail("the MLflow server does not start")

    def ask(self, path: str, **question: object) -> dict[str, list[dict[str, dict[str, object]]]]:
        request = urllib.request.Request(
            f"{self.url}/api/2.0/mlflow/{path}",
            json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            found: dict[str, list[dict[str, dict[str, object]]]] = json.load(answer)
        return found

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("mlflow"))
    try:
        made.wait()
        yield made
    finally:
        if made.process.poll() is None:
            made.kill()


def told(result: Result) -> list[str]:
    return [line for line in result.lines if line.startswith("WARNING ") and "track" in line]


def test_all_trackers_have_the_run_each_by_its_own_variable(
    entrypoint: Entrypoint, server: Server
) -> None:
    start = entrypoint.start(
        MLFLOW_TRACKING_URI=server.url,
        MLFLOW_HTTP_REQUEST_TIMEOUT="60",
        WANDB_MODE="offline",
        TENSORBOARD_LOGGING_DIR=str(entrypoint.folder / "board"),
        AXOLOTL_MAX_STEPS="4",
    )
    result = start.wait()
    assert result.code == 0, result.err[-3000:]
    assert told(result) == []
    run = start.only_run()
    assert list(run.rglob("*.wandb"))
    assert list((entrypoint.folder / "board").rglob("events.out.tfevents.*"))
    [one] = server.ask("runs/search", experiment_ids=["1"])["runs"]
    assert one["info"]["status"] == "FINISHED"
    id_ = one["info"]["run_id"]
    with sqlite3.connect(Path(server.log.name).parent / "server.db") as base:
        rows = base.execute(
            "select step, value from metrics where key = 'loss' and run_uuid = ?", (id_,)
        )
        seen = sorted(rows)
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    logged = [m["loss"] for m in metrics(run)]
    assert [value for _, value in seen] == pytest.approx(logged, rel=1e-3)


def test_a_server_that_dies_in_the_middle_costs_no_run(
    entrypoint: Entrypoint, server: Server
) -> None:
    """The last test of this server."""
    start = entrypoint.start(MLFLOW_TRACKING_URI=server.url, AXOLOTL_MAX_STEPS="12")
    start.until_step(2)
    server.kill()
    result = start.wait()
    assert result.code == 0, result.err[-3000:]
    assert read(start.only_run() / "report.json")["steps"] == 12
    assert not start.left_over()


def test_dead_trackers_are_told_and_the_run_is_tracked_in_files(entrypoint: Entrypoint) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    start = entrypoint.start(
        MLFLOW_TRACKING_URI=nobody,
        WANDB_BASE_URL=nobody,
        WANDB_API_KEY=KEY,
        AXOLOTL_MAX_STEPS="2",
        AXOLOTL_WANDB_MODE="online",
    )
    result = start.wait()
    assert result.code == 0, result.err[-3000:]
    run = start.only_run()
    assert [line.removeprefix("WARNING train: ") for line in told(result)] == [
        f"W&B: {nobody} cannot be reached (ConnectError); this start is tracked offline; "
        "`wandb sync` uploads it later",
        f"MLflow: {nobody} cannot be reached (ConnectError); this start is tracked in "
        f"{run}/mlflow.db",
    ]
    assert list(run.rglob("*.wandb"))
    with sqlite3.connect(run / "mlflow.db") as base:
        assert base.execute("select count(*) from metrics where key = 'loss'").fetchone() == (2,)


@pytest.mark.parametrize("fate", ["deleted", "elsewhere", "active", "the user's"])
def test_a_run_that_mlflow_has_lost_is_begun_anew(fate: str, tmp_path: Path) -> None:
    import mlflow

    from envtune.engine import tracking

    client = mlflow.MlflowClient(uri := f"sqlite:///{tmp_path}/mine.db")
    mlflow.set_tracking_uri(uri)
    id_ = "0" * 32 if fate == "elsewhere" else client.create_run("0").info.run_id
    if fate == "deleted":
        client.delete_run(id_)
    if fate != "the user's":
        trackers.note_mlflow(tmp_path, uri, id_)
    tracking.leave_lost(tmp_path, environ := {"MLFLOW_RUN_ID": id_})
    assert environ == ({} if fate in ("deleted", "elsewhere") else {"MLFLOW_RUN_ID": id_})
    tracking.leave_lost(tmp_path, environ := {})
    assert environ == {}


class Silent(Quiet):
    """Takes a connection and does not answer for longer than anybody waits."""

    def do_GET(self) -> None:
        time.sleep(60)

    do_POST = do_GET


def test_a_server_that_does_not_answer_is_given_five_seconds(tmp_path: Path) -> None:
    with serving(Silent) as url:
        given = {"MLFLOW_TRACKING_URI": url, "WANDB_BASE_URL": url, "WANDB_API_KEY": KEY}
        started = time.monotonic()
        tracked = trackers.reached(run_config(WANDB | MLFLOW), given, tmp_path)
        assert time.monotonic() - started < 25
    assert tracked.environ["WANDB_MODE"] == "offline"
    assert tracked.environ["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert len(tracked.warnings) == 2


def test_an_address_that_is_none_costs_no_run(tmp_path: Path) -> None:
    given = {
        "MLFLOW_TRACKING_URI": "http://[::1",
        "WANDB_BASE_URL": "nowhere",
        "WANDB_API_KEY": KEY,
    }
    tracked = trackers.reached(run_config(WANDB | MLFLOW), given, tmp_path)
    assert set(tracked.environ) == {"WANDB_MODE", "MLFLOW_TRACKING_URI"}
    assert all("cannot be reached" in line for line in tracked.warnings)


class Keyed(Quiet):
    """Stands in for W&B and for an MLflow server with a login, as they answer in HTTP."""

    def do_POST(self) -> None:
        user, _, key = base64.b64decode(self.headers["Authorization"][6:]).decode().partition(":")
        known = {"viewer": {"username": "ada"}} if (user, key) == ("api", KEY) else {"viewer": None}
        self._answer(200, {"data": known})

    def do_GET(self) -> None:
        given = self.headers.get("Authorization", "")
        basic = "Basic " + base64.b64encode(b"ada:right").decode()
        self._answer(200 if given in (basic, "Bearer right") else 401, {})

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.mark.parametrize(
    ("given", "refused"),
    [
        ({"WANDB_API_KEY": KEY}, ""),
        ({"WANDB_API_KEY": "x" * 40}, "WANDB_MODE"),
        ({"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "right"}, ""),
        ({"MLFLOW_TRACKING_USERNAME": "ada", "MLFLOW_TRACKING_PASSWORD": "wrong"}, "MLFLOW_TRACKING_URI"),
        ({"MLFLOW_TRACKING_TOKEN": "right"}, ""),
        ({"MLFLOW_TRACKING_TOKEN": "wrong"}, "MLFLOW_TRACKING_URI"),
    ],
)  # fmt: skip
def test_a_key_that_is_refused_is_told_before_training(
    given: dict[str, str], refused: str, tmp_path: Path
) -> None:
    on = WANDB if "WANDB_API_KEY" in given else MLFLOW
    with serving(Keyed) as url:
        where = {"WANDB_BASE_URL": url} if on is WANDB else {"MLFLOW_TRACKING_URI": url}
        tracked = trackers.reached(run_config(on), {**where, **given}, tmp_path)
    assert set(tracked.environ) == ({refused} if refused else set())
    assert [line for line in tracked.warnings if "refuses the key" not in line] == []
    assert len(tracked.warnings) == bool(refused)
    assert not any(value in line for value in given.values() for line in tracked.warnings)


def test_nobody_is_asked_where_no_tracker_is_on(tmp_path: Path) -> None:
    given = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "WANDB_API_KEY": KEY}
    assert trackers.reached(run_config(), given, tmp_path) == trackers.Tracked({}, ())
    offline = trackers.reached(run_config(WANDB), {**given, "WANDB_MODE": "offline"}, tmp_path)
    assert offline == trackers.Tracked({}, ())


def test_the_address_that_a_key_names_is_the_one_that_is_asked(tmp_path: Path) -> None:
    config = run_config(MLFLOW | {"mlflow_tracking_uri": "sqlite:///mine.db"})
    tracked = trackers.reached(config, {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}, tmp_path)
    assert tracked == trackers.Tracked({"MLFLOW_TRACKING_URI": "sqlite:///mine.db"}, ())


def test_trackio_does_not_fit_the_transformers_that_axolotl_pins() -> None:
    """Where this fails, the refusal of use_trackio has had its day."""
    import inspect

    import trackio
    from transformers.integrations.integration_utils import TrackioCallback

    assert "bucket_id" in inspect.getsource(TrackioCallback)
    assert "bucket_id" not in inspect.signature(trackio.init).parameters

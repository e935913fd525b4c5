"""What a health check is told of the newest run."""

import http.server
import json
import os
import re
import threading
import time
from pathlib import Path

import pytest

from envtune import files
from envtune.runs import contents, folders, lease
from envtune.serve import health


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that nobody works on."""
    folder = tmp_path / "tiny-run1"
    folder.mkdir()
    told = {"name": folder.name, "prefix": "tiny", "number": 1, "key": "k", "logs": "/logs/tiny"}
    files.write_json(folder / contents.RECORD, told)
    files.write_text(tmp_path / folders.LATEST, folder.name)
    return folder


def test_no_run_and_a_run_at_rest_are_well(tmp_path: Path, run: Path) -> None:
    assert health.look(tmp_path / "nothing") == (True, "no run yet")
    assert health.look(tmp_path) == (True, "tiny-run1 is at rest")


def test_a_holder_that_is_silent_is_not_well(tmp_path: Path, run: Path) -> None:
    with lease.Lease(run):
        assert health.look(tmp_path) == (True, "tiny-run1 is at work")
        old = time.time() - lease.STALE - 60
        os.utime(run / "lease", (old, old))
        well, line = health.look(tmp_path)
    assert not well
    assert re.search(r"has been silent for \d+ s", line)


def test_what_was_killed_elsewhere_is_at_rest_here(tmp_path: Path, run: Path) -> None:
    (run / "lease").write_text(json.dumps({"stamp": "1:1"}))
    assert health.look(tmp_path) == (True, "tiny-run1 is at rest")


class _Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()


def test_a_server_is_asked_while_its_process_lives(tmp_path: Path, run: Path) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), _Well)
    url = f"http://127.0.0.1:{server.server_port}"
    health.announce(run, url)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert health.look(tmp_path) == (True, f"{url} answers")
    server.shutdown()
    server.server_close()
    assert health.look(tmp_path) == (False, f"{url} is silent")
    files.write_json(run / contents.SERVER, {"url": url, "stamp": "1:1"})
    assert health.look(tmp_path) == (True, "tiny-run1 is at rest")


def test_the_server_of_an_older_run_is_asked_where_the_newest_is_no_result(
    tmp_path: Path, run: Path
) -> None:
    newest, told = tmp_path / "tiny-run2", json.loads((run / contents.RECORD).read_text())
    newest.mkdir()
    files.write_json(newest / contents.RECORD, {**told, "name": newest.name, "number": 2})
    trained = {**told, "stages": {"train": {"outcome": "done"}}}
    files.write_json(run / contents.RECORD, trained)
    files.write_text(tmp_path / folders.LATEST, newest.name)
    health.announce(run, "http://127.0.0.1:9")
    assert health.look(tmp_path) == (False, "http://127.0.0.1:9 is silent")
    (run / contents.SERVER).unlink()
    with lease.Lease(newest):
        old = time.time() - lease.STALE - 60
        os.utime(newest / "lease", (old, old))
        well, line = health.look(tmp_path)
    assert not well
    assert line.startswith("tiny-run2")

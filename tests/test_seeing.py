"""Who looks on while a run goes, and what is left for whoever comes afterwards.

One real run: killed in the middle, started again with a live page, and looked at until its end.
"""

import json
import random
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from envtune import events
from envtune.events import Stream
from envtune.watch import report, server, story
from tests.harness import Entrypoint, clean_environ, envtune, free_port, kill, metrics

TOKEN = "st_" + "Ab3d5F7h9J" * 3
SECRET = "hf_" + "Zy8x6W4v2U" * 3


def get(url: str, token: str = "") -> tuple[int, str]:
    """Status and body, whatever the status is."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=60
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


class Page(HTMLParser):
    """What a page asks of others, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asks: list[str] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.asks += [value for name, value in attrs if name in ("src", "href") and value]


@pytest.fixture(scope="module")
def seen(
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    forking: dict[str, str],
    seed: int,
) -> dict[str, Any]:
    """A run that was killed at a step that is drawn, gone on with, and looked at meanwhile."""
    print(f"seed {seed}")
    port, moment = free_port(), random.Random(f"{seed}:seen").randrange(6, 30)
    more = {"SFT_STATUS_PORT": str(port), "STATUS_TOKEN": TOKEN, "HF_TOKEN": SECRET,
            "SFT_USD_PER_HOUR": "2.5", "AXOLOTL_SAVE_STEPS": "5"}  # fmt: skip
    entry = Entrypoint(tmp_path_factory.mktemp("seen"), settings | forking | more)
    first = entry.start()
    first.until_step(moment)
    for pid in first.left_over():
        kill(pid)
    first.wait()
    assert first.gone()
    second, answers = entry.start(), dict[str, list[tuple[int, str]]]()
    second.until_step(moment + 3)
    for path in ("/", "/status.json", "/healthz", "/metrics", "/nothing"):
        answers[path] = [get(f"http://127.0.0.1:{port}{path}", token) for token in (TOKEN, "wrong")]
    ended = second.wait()
    assert ended.code == 0, ended.err[-3000:]
    return {"run": second.only_run(), "answers": answers, "moment": moment, "end": ended}


def test_the_story_of_a_killed_run_has_each_step_once(seen: dict[str, Any]) -> None:
    told, logged = story.of(seen["run"]), metrics(seen["run"])
    assert (
        sorted(told.steps)
        == [line["step"] for line in logged]
        == list(range(1, told.max_steps + 1))
    )
    assert [told.steps[line["step"]]["loss"] for line in logged] == [
        line["loss"] for line in logged
    ]
    assert len(told.starts) == 2
    resumed = [e["step"] for e in events.read(seen["run"]) if e["kind"] == "resumed"]
    assert resumed[0] == 0
    assert 0 < resumed[1] <= seen["moment"] + 1
    assert told.outcome is not None
    assert told.outcome["exit"] == 0


def test_the_report_has_one_unbroken_curve_and_asks_nobody(seen: dict[str, Any]) -> None:
    text = (seen["run"] / "report.html").read_text()
    page = Page(text)
    assert page.asks == ["data:,"]
    assert "script" not in page.tags
    assert len(text) < 1_000_000
    loss = re.search(r'aria-label="loss[^>]*>.*?<path class="s0" d="([^"]+)"', text, re.S)
    assert loss is not None
    places = [float(x) for x in re.findall(r"[ML]([0-9.]+),", loss[1])]
    assert places == sorted(set(places))
    assert len(places) == story.of(seen["run"]).max_steps


def test_the_live_page_shows_its_token_s_bearer_alone(seen: dict[str, Any]) -> None:
    for path, (right, wrong) in seen["answers"].items():
        expected = (404, 401) if path == "/nothing" else (200, 200 if path == "/healthz" else 401)
        assert (right[0], wrong[0]) == expected, path
    told = json.loads(seen["answers"]["/status.json"][0][1])
    assert told["state"] == "training"
    assert told["step"] >= seen["moment"]
    assert "<svg" in seen["answers"]["/"][0][1]


def test_prometheus_reads_the_metrics(seen: dict[str, Any]) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    families = {
        f.name: f for f in text_string_to_metric_families(seen["answers"]["/metrics"][0][1])
    }
    (step,) = families["envtune_step"].samples
    assert step.value >= seen["moment"]
    assert families["envtune_tokens"].type == "counter"
    states = {s.labels["state"]: s.value for s in families["envtune_state"].samples}
    assert states["training"] == 1
    assert sum(states.values()) == 1
    labels = {frozenset(s.labels) for f in families.values() for s in f.samples}
    assert labels == {frozenset(), frozenset({"state"})}


def test_no_secret_is_in_anything_that_is_shown(seen: dict[str, Any]) -> None:
    shown = [body for answers in seen["answers"].values() for _, body in answers]
    shown += [(seen["run"] / name).read_text() for name in ("report.html", events.EVENTS)]
    assert not any(
        secret in text for text in [*shown, seen["end"].err] for secret in (TOKEN, SECRET)
    )


def test_two_runs_are_compared_and_one_is_watched(seen: dict[str, Any], lora: Path) -> None:
    environ = clean_environ(SFT_OUTPUTS_DIR=str(seen["run"].parent))
    compared = envtune("report", str(seen["run"]), str(lora), cwd=lora.parent, environ=environ)
    assert compared.code == 0
    assert "save_steps" in compared.out
    watched = envtune("watch", cwd=lora.parent, environ=environ)
    assert (watched.code, "exit 0: done" in watched.out) == (0, True)
    assert all(len(line) <= 80 for line in watched.out.splitlines())
    three = envtune("report", "a", "b", "c", cwd=lora.parent, environ=environ)
    assert (three.code, "two to compare" in three.err) == (1, True)


def test_a_run_that_fails_has_a_page_with_the_cause_first(
    entrypoint: Entrypoint, forking: dict[str, str]
) -> None:
    start = entrypoint.start(**forking, AXOLOTL_LEARNING_RATE="1e20", AXOLOTL_NUM_EPOCHS="1")
    ended = start.wait()
    assert ended.code == 6, ended.err[-2000:]
    text = (start.only_run() / "report.html").read_text()
    assert text.index('class="cause"') < text.index('class="figures"')
    assert "exit 6" in text


def test_hostile_events_do_no_harm_to_the_page(tmp_path: Path) -> None:
    stream = Stream(tmp_path)
    stream.add("start", run='"><script>alert(1)</script>', machine="</title><img src=x>")
    stream.add("step", step=1, loss=1e308, learning_rate=5e-324, grad_norm=-1e308, tokens=2**62)
    stream.add("step", step=10**12, loss=-1e308, tokens=-1, seconds=-5.0)
    stream.add("warning", text="<script>alert(1)</script>\x1b[2J" + "x" * 1_000_000)
    stream.add("outcome", exit=203, text="<iframe src=//elsewhere>")
    with stream.path.open("a") as file:
        file.write("<script>" + "\0" * 10_000 + "\n")
    page = Page(text := report.page(tmp_path))
    assert page.asks == ["data:,"]
    assert not {"script", "iframe", "img"} & set(page.tags)
    assert len(text) < 100_000


def test_a_training_that_is_silent_is_not_well(tmp_path: Path) -> None:
    answers = server.Answers(tmp_path, silence=0.2)
    stream = Stream(tmp_path)
    stream.add("start", run="r")
    stream.add("phase", phase="training", max_steps=9)
    assert answers.health()[0] == 200
    assert answers.get("/healthz")[0] == 200
    time.sleep(1.2)
    assert answers.get("/healthz")[0] == 503
    stream.add("outcome", exit=6, text="not finite")
    time.sleep(1.1)
    assert answers.get("/healthz")[2] == b"exit 6\n"


def test_a_port_that_is_taken_is_told_and_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with server.LivePage(server.Answers(tmp_path), "127.0.0.1", port, ""):
            pass
    assert f"no live page: 127.0.0.1:{port}: Address already in use" in caplog.text


def test_readers_that_are_slow_or_gone_keep_nobody_waiting(tmp_path: Path) -> None:
    Stream(tmp_path).add("start", run="r")
    port = free_port()
    with server.LivePage(server.Answers(tmp_path), "127.0.0.1", port, ""):
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(50)]
        for one in slow:
            one.sendall(b"GET / HTTP/1.1\r\nHost")
        slow[0].close()
        found: list[int] = []

        def ask() -> None:
            found.append(get(f"http://127.0.0.1:{port}/status.json")[0])

        threads = [threading.Thread(target=ask) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [200] * 50
    for one in slow:
        one.close()

"""Who is told of a run from outside: a notice at its end, and Kubeflow while it trains.

Slack, Discord, ntfy and Kubeflow's controller cannot be reached from a test: servers on loopback
stand in for them.
"""

import json
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from envtune.errors import Exit
from envtune.supervise.finish import End
from envtune.watch import notice
from tests.harness import Entrypoint, Quiet, Result, contents, serving
from tests.test_trust import behind_tls

TOKEN = "B0pl4nted5e1f/0c77aaXq9ZkPw2"
PATH = f"/services/T0/{TOKEN}"


class Receiver(Quiet):
    """Stands in for who is told. `answers` are the statuses of the next answers, 200 after them."""

    answers: list[int]
    told: list[tuple[str, dict[str, str], bytes]]
    pause = 0.0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.told.append((self.path, dict(self.headers), body))
        time.sleep(self.pause)
        code = self.answers.pop(0) if self.answers else 200
        self.send_response(code)
        if code == 302:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def receiver(*answers: int, pause: float = 0.0) -> Iterator[tuple[str, list[Any]]]:
    """The address of somebody who is told, and what was."""
    told: list[Any] = []
    kind = {"answers": list(answers), "told": told, "pause": pause}
    with serving(type("Receiving", (Receiver,), kind)) as url:
        yield f"{url}{PATH}", told


def finish(folder: Path, code: int, **environ: str) -> Result:
    return Entrypoint(folder, environ).run("envtune", "finish", str(code))


def nothing_leaked(folder: Path, *results: Result) -> None:
    for text in (r.out + r.err for r in results):
        assert TOKEN not in text
        assert TOKEN.rpartition("/")[2] not in text
    for name, data in contents(folder).items():
        assert TOKEN.rpartition("/")[2].encode() not in data, name


WORDS = {0: "done", 3: "failed", 7: "budget used up", 143: "stopped", 130: "stopped"}


@pytest.mark.parametrize("code", WORDS)
def test_every_end_is_told_and_keeps_its_code(code: int, tmp_path: Path) -> None:
    with receiver() as (url, told):
        ended = finish(tmp_path, code, SFT_NOTIFY_URL=url)
    assert ended.code == code, ended.err
    [(path, headers, body)] = told
    said = json.loads(body)
    assert (path, headers["Content-Type"]) == (PATH, "application/json")
    assert (said["outcome"], said["exit"], said["run"]) == (WORDS[code], code, "")
    nothing_leaked(tmp_path, ended)


def test_a_wrong_variable_is_told_without_a_secret(tmp_path: Path) -> None:
    secret = "hf_pl4nted0c77aaXq9ZkPw2"
    with receiver() as (url, told):
        environ = {"AXOLOTL_LORA_R": secret, "HF_TOKEN": secret, "SFT_NOTIFY_URL": url}
        ended = Entrypoint(tmp_path, environ).run("envtune", "run")
    assert ended.code == 1
    [(_, _, body)] = told
    said = json.loads(body)
    assert said["outcome"] == "failed"
    assert "AXOLOTL_LORA_R" in said["line"]
    assert secret.encode() not in body
    nothing_leaked(tmp_path, ended)


def test_it_is_tried_again_and_given_up_in_time(tmp_path: Path) -> None:
    """Statuses that pass, one that does not, nobody there, and one that never answers."""
    rows: list[tuple[tuple[int, ...], float, int, str]] = [
        ((500, 429), 0.0, 3, "told that the run is failed"),
        ((503, 503, 503), 0.0, 3, "the notice was not taken: it answers with status 503"),
        ((404,), 0.0, 1, "the notice was not taken: it answers with status 404"),
        ((302,), 0.0, 1, "the notice was not taken: it answers with status 302"),
        ((), 30.0, 1, "the notice was not taken:"),
    ]
    for answers, pause, tries, line in rows:
        with receiver(*answers, pause=pause) as (url, told):
            ended = finish(tmp_path, 3, SFT_NOTIFY_URL=url)
        assert (ended.code, len(told)) == (3, tries), ended.err
        assert [said for said in ended.said if said.startswith("SFT_NOTIFY_URL: ")] != []
        assert line in ended.err
        nothing_leaked(tmp_path, ended)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}{PATH}"
    gone = finish(tmp_path, 3, SFT_NOTIFY_URL=url)
    assert (gone.code, "it cannot be reached (ConnectError)" in gone.err) == (3, True)
    nothing_leaked(tmp_path, gone)


def test_its_address_is_a_secret_that_only_the_environment_holds(
    tmp_path: Path, settings: dict[str, str]
) -> None:
    """In a file of its own; on a command line and in a document it is refused, and not shown."""
    (tmp_path / "url").write_text("")
    with receiver() as (url, told):
        (tmp_path / "url").write_text(f"{url}\n")
        ended = finish(tmp_path, 0, SFT_NOTIFY_URL_FILE=str(tmp_path / "url"))
        assert (ended.code, len(told)) == (0, 1)
        (tmp_path / "url").unlink()
        line = Entrypoint(tmp_path, settings).run("envtune", "check", f"SFT_NOTIFY_URL={url}")
        nothing_leaked(tmp_path, ended)
    assert line.code == 1
    assert "SFT_NOTIFY_URL: is a secret, which no file and no command line may hold" in line.err
    wrong = Entrypoint(tmp_path, settings).run(
        "envtune", "check", SFT_NOTIFY_URL=f"ftp://a/{TOKEN}"
    )
    assert (wrong.code, "SFT_NOTIFY_URL: is no address" in wrong.err) == (1, True)
    nothing_leaked(tmp_path, wrong)


class Kubeflow(Receiver):
    """Stands in for the controller of a TrainJob, whose certificate its own bundle vouches for."""


@dataclass
class Told:
    """What was told by a run that used up a limit, was stopped, went on, and was asked again."""

    run: Path
    results: list[Result]
    notices: list[dict[str, Any]]
    reports: list[tuple[int, str, dict[str, Any]]]  # the start, the token, the status


@pytest.fixture(scope="module")
def lived(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], forking: dict[str, str]
) -> Told:
    folder, statuses = tmp_path_factory.mktemp("told"), list[Any]()
    (folder / "token").write_text(f"{TOKEN}-kubeflow\n")
    kind = type("Controller", (Kubeflow,), {"answers": [], "told": statuses})
    results, counts = [], []
    with receiver() as (url, told), behind_tls(folder, kind) as controller:
        environ = {
            **settings, **forking, "SFT_NOTIFY_URL": url,
            "KUBEFLOW_TRAINER_SERVER_URL": controller.url,
            "KUBEFLOW_TRAINER_SERVER_CA_CERT": str(controller.bundle),
            "KUBEFLOW_TRAINER_SERVER_TOKEN": str(folder / "token"),
        }  # fmt: skip
        entrypoint = Entrypoint(folder, environ)
        for number, more in enumerate(({"SFT_MAX_HOURS": "0.000001"}, {}, {}, {})):
            start = entrypoint.start(**more)
            if number == 1:
                start.until_step(3)
                start.signal()
            results.append(start.wait())
            counts.append(len(statuses))
    (folder / "token").unlink()
    reports = [
        (sum(n >= count for count in counts), headers["Authorization"], json.loads(body))
        for n, (_, headers, body) in enumerate(statuses)
    ]
    return Told(start.only_run(), results, [json.loads(body) for _, _, body in told], reports)


def test_a_run_tells_each_of_its_ends_once(lived: Told) -> None:
    """A limit, a stop, and its end with what it has made; a start that finds it done says nothing."""
    assert [result.code for result in lived.results] == [7, 143, 0, 0]
    budget, stopped, done = lived.notices
    told = [(n["outcome"], n["exit"], n["run"]) for n in (budget, stopped, done)]
    name = lived.run.name
    assert told == [("budget used up", 7, name), ("stopped", 143, name), ("done", 0, name)]
    assert budget["line"].startswith("SFT_MAX_HOURS: ")
    assert "is committed; the next start goes on from there" in stopped["line"]
    assert done["last_loss"] < stopped["last_loss"] < stopped["first_loss"] == done["first_loss"]
    assert (stopped["artifact"], done["artifact"]) == ("", str(lived.run / "adapter"))
    nothing_leaked(lived.run.parents[1], *lived.results)


def test_kubeflow_hears_how_far_a_training_is_and_of_no_stop_that_it_is_complete(
    lived: Told,
) -> None:
    """Over TLS by the controller's own bundle, with the token of the pod's file."""
    assert {token for _, token, _ in lived.reports} == {f"Bearer {TOKEN}-kubeflow"}
    told = [(start, report["trainerStatus"]) for start, _, report in lived.reports]
    progress = {
        start: [s["progressPercentage"] for at, s in told if at == start] for start in (1, 2)
    }
    assert max(progress[1]) < 100
    assert (progress[2][0], progress[2][-1]) == (0, 100)
    last = {metric["name"]: metric["value"] for metric in told[-1][1]["metrics"]}
    assert float(last["loss"]) < 3
    assert {start for start, _ in told} == {1, 2}, "a start that trains nothing has told something"


Shape = Callable[[dict[str, Any]], str]
SHAPES: dict[str, Shape] = {
    "https://hooks.slack.com/services/T0/B0/x": lambda sent: json.loads(sent["content"])["text"],
    "slack+https://chat.example.com/hooks/x": lambda sent: json.loads(sent["content"])["text"],
    "https://discord.com/api/webhooks/1/x": lambda sent: json.loads(sent["content"])["content"],
    "https://ntfy.sh/topic": lambda sent: sent["content"].decode(),
    "ntfy+https://push.example.com/topic": lambda sent: sent["content"].decode(),
    "https://example.com/x?auth=1": lambda sent: json.loads(sent["content"])["text"],
}


@pytest.mark.parametrize("url", SHAPES)
def test_who_is_told_is_known_by_the_address(url: str, dice: random.Random) -> None:
    """And no line of a failure becomes more than a line: no mention, no markup, no header."""
    evil = "".join(chr(dice.randrange(1, 0x300)) for _ in range(300))
    line = f"@everyone <!channel> <b>\x1b[2J\r\nX: y {evil}" + "x" * 5000
    told = notice.made(End(Exit.DATA, line, None))
    sent = notice.request(url, told)
    assert sent["url"] == url.partition("+")[2] or sent["url"] == url
    text = SHAPES[url](sent)
    assert "(exit 3)" in text
    assert len(text) < 2000
    assert "\x1b" not in text
    assert all(v.isascii() and v.isprintable() for v in sent["headers"].values())
    assert "slack" not in url or "<!channel>" not in text
    body = json.loads(sent["content"]) if "ntfy" not in url else {}
    assert "discord" not in url or body["allowed_mentions"] == {"parse": []}
    assert ("first_loss" in body) is url.startswith("https://example.com")

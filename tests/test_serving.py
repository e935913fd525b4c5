"""One command trains, proves, serves and answers; then it is stopped, and started again."""

import http.client
import json
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file

from envtune.cli.console import harmless
from envtune.settings import upstream
from tests.harness import (
    ROOT,
    Entrypoint,
    Result,
    clean_environ,
    envtune,
    execute,
    free_port,
    read,
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv-serve" / "bin" / "python").exists(),
    reason="there is no serve environment; `make setup-serve` makes it",
)
KEY = "planted-5e1f0c77aa"
# A user's own middleware: each leaves a header on what it has seen.
MINE = """
class One:
    name = b"x-one"
    def __init__(self, app):
        self.app = app
    async def __call__(self, scope, receive, send):
        async def marked(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (self.name, b"seen")]
            await send(message)
        await self.app(scope, receive, marked)
class Two(One):
    name = b"x-two"
"""
SENTENCE = [{"role": "user", "content": "What is 3 plus 4?"}]


class Served:
    """A run that is being served, and what is needed to ask it."""

    def __init__(self, entrypoint: Entrypoint, port: int, environ: dict[str, str]) -> None:
        self.entrypoint, self.port, self.environ = entrypoint, port, environ
        self.start = entrypoint.start(**environ)
        self.start.until_said("answers at")
        self.run = self.start.only_run()

    def client(self, key: str = KEY) -> httpx.Client:
        headers = {"Authorization": f"Bearer {key}"}
        return httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=120, trust_env=False
        )

    def chat(self, model: str) -> str:
        question = {"model": model, "messages": SENTENCE, "max_tokens": 24, "temperature": 0}
        with self.client() as client:
            answer = client.post("/v1/chat/completions", json=question)
        assert answer.status_code == 200, answer.text
        said: str = answer.json()["choices"][0]["message"]["content"]
        return said

    def end(self) -> None:
        """Stops what is still there."""
        if self.start.process.poll() is None:
            self.start.signal()
            self.start.wait()

    def verb(self, name: str, **more: str) -> Result:
        environ = clean_environ(**{**self.environ, **more})
        return envtune(name, cwd=self.entrypoint.folder, environ=environ)


@pytest.fixture(scope="module")
def serving(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], forking: dict[str, str]
) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("serving"), free_port()
    (folder / "modules").mkdir()
    (folder / "modules" / "mine.py").write_text(MINE)
    more = {
        "SFT_SERVE": "true", "SFT_PARITY": "require", "SFT_SERVE_PORT": str(port),
        "VLLM_API_KEY": KEY, "TERMINATION_LOG_FILE": str(folder / "termination"),
        "SFT_SERVE_MIDDLEWARE": "mine.One,mine.Two", "PYTHONPATH": str(folder / "modules"),
        "SFT_SERVE_ALLOWED_ORIGINS": '["http://a"]',
    }  # fmt: skip
    found = Served(Entrypoint(folder, settings | forking), port, more)
    yield found
    found.end()


def test_what_is_served_was_proved_first(serving: Served) -> None:
    stages = read(serving.run / "run.json")["stages"]
    assert (stages["parity"]["prompts"], stages["parity"]["equal"]) == (7, True)
    assert stages["parity"]["largest_difference"] < 1e-3
    assert stages["parity"]["base_mean_difference"] > 0.1, "the prompts tell nothing"
    [proof] = [c for c in read(serving.run / ".complete")["checks"] if "answers as trained" in c]
    print(proof)


def test_the_base_and_the_tuned_model_can_both_be_asked(serving: Served) -> None:
    base, tuned = serving.chat("tiny-llama"), serving.chat(serving.run.name)
    assert tuned.endswith("."), "it was trained to say a sentence and to stop"
    assert base != tuned


def test_the_smoke_test_asks_what_a_client_would(serving: Served) -> None:
    good = serving.verb("smoke-test")
    assert good.code == 0, good.err
    assert "smoke-test: 6 of 6 passed" in good.err
    bad = serving.verb("smoke-test", VLLM_API_KEY="another-5e1f0c77aa")
    assert bad.code == 6
    assert "models: 401" in bad.err


def test_a_chat_in_the_terminal_asks_the_server_that_runs(serving: Served) -> None:
    """Where it is found by the run alone, with the base beside it and with its key."""
    environ = clean_environ(**serving.environ)
    asked = SENTENCE[0]["content"]
    given = 'SFT_EVAL_GENERATION={"max_new_tokens": 24}'
    command = [str(ROOT / ".venv" / "bin" / "envtune"), "chat", given, "--once", asked]
    once = execute(command, serving.entrypoint.folder, environ)
    base, tuned = serving.chat("tiny-llama"), serving.chat(serving.run.name)
    assert (once.code, once.out, once.err) == (0, f"{harmless(tuned)}\n", "")
    both = execute([*command, "--base"], serving.entrypoint.folder, environ)
    assert both.out == f"base:\n{harmless(base)}\ntuned:\n{harmless(tuned)}\n"
    refused = execute(command, serving.entrypoint.folder, environ | {"VLLM_API_KEY": f"{KEY}-not"})
    assert (refused.code, refused.out) == (4, "")
    assert "VLLM_API_KEY: the server at" in refused.err
    long = execute([*command, "--system", "so " * 2000], serving.entrypoint.folder, environ)
    assert (long.code, long.out) == (3, "")
    assert "and the model takes 512" in long.err


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
UPGRADE = {
    "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}  # fmt: skip
# Not routes, or not as they are written.
ODD = (
    "//health", "/health/", "/HEALTH", "/health/../version", "/health%2f..%2fversion", "/nope",
    "/metricsfoo", "/health;a", "/v1/../health", "http://x/version", "*",
)  # fmt: skip


def asked(
    port: int, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> http.client.HTTPResponse:
    """The answer to a path that goes out as it is written, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def routes(serving: Served) -> set[str]:
    """Every path that vLLM says it has, which is more than its openapi.json lists."""
    log = Path(read(serving.run / "run.json")["logs"]) / "serve" / "run.log"
    found = set(re.findall(r"Route: (\S+), (?:Methods|Endpoint)", log.read_text()))
    return {re.sub(r"\{[^}]*\}", "x", path) for path in found}


@pytest.mark.parametrize("key", [None, "another-5e1f0c77aa"])
def test_every_route_asks_for_the_key_whatever_the_method(serving: Served, key: str | None) -> None:
    told = {} if key is None else {"Authorization": f"Bearer {key}"}
    paths = routes(serving)
    assert {"/invocations", "/tokenize", "/docs", "/openapi.json", "/health"} <= paths
    open_ = []
    for path in (*sorted(paths), "/metrics", "/metrics/", *ODD):
        codes = {m: asked(serving.port, m, path, told).status for m in METHODS}
        codes["websocket"] = asked(serving.port, "GET", path, {**UPGRADE, **told}).status
        open_ += [(method, path) for method, code in codes.items() if code not in (401, 400)]
        assert 400 not in codes.values() or path == "*", (path, codes)
    print(f"{len(paths)} routes by {len(METHODS) + 1} methods")
    assert open_ == [("GET", "/health")]


def test_what_asks_with_the_key_is_answered_as_ever(serving: Served) -> None:
    told = {"Authorization": f"Bearer {KEY}"}
    for path in ("/v1/models", "/docs", "/openapi.json", "/metrics", "/version", "/health"):
        answer = asked(serving.port, "GET", path, told)
        assert answer.status == 200, path
        assert (answer.headers["x-one"], answer.headers["x-two"]) == ("seen", "seen")
    body = json.dumps({"model": "tiny-llama", "prompt": "a"}).encode()
    more = {**told, "Content-Type": "application/json"}
    assert asked(serving.port, "POST", "/tokenize", more, body).status == 200
    assert (
        asked(serving.port, "POST", "/tokenize", told | {"Authorization": KEY}, body).status == 401
    )
    assert asked(serving.port, "GET", "/docs", {}).headers["x-two"] is None, "it was reached"
    preflight = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}
    assert asked(serving.port, "OPTIONS", "/v1/models", preflight).status == 200


def test_a_body_of_50_mb_is_refused_before_it_is_read(serving: Served) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), timeout=30) as one:
        size = 50 * 2**20
        one.sendall(
            f"POST /invocations HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()
        )
        one.sendall(b"x" * 1000)
        assert one.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_what_nobody_may_serve_is_refused_before_vllm_starts(serving: Served) -> None:
    rows = [
        ({"VLLM_API_KEY": "", "SFT_SERVE_HOST": "0.0.0.0"}, "SFT_SERVE_HOST: 0.0.0.0 is reached by others"),
        ({"VLLM_API_KEY": " ", "SFT_SERVE_HOST": "::"}, "SFT_SERVE_HOST: :: is reached by others"),
        ({"SFT_SERVE_MIDDLEWARE": "mine.Three"}, "SFT_SERVE_MIDDLEWARE: mine.Three: AttributeError"),
    ]  # fmt: skip
    for more, line in rows:
        told = serving.verb("serve", SFT_SERVE_PORT=str(free_port()), **more)
        assert told.code == 1, told.err
        assert line in told.err
        assert "starting vLLM" not in told.err


def test_the_key_is_written_nowhere(serving: Served) -> None:
    for path in serving.entrypoint.folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path
    for command in serving.start.commands().values():
        assert KEY.encode() not in command


def test_a_second_server_on_the_port_is_refused_before_vllm_starts(serving: Served) -> None:
    refused = serving.verb("serve")
    assert refused.code == 1
    assert f"SFT_SERVE_PORT: {serving.port} of 127.0.0.1 is in use" in refused.err
    assert "starting vLLM" not in refused.err


def test_adapters_that_do_not_fit_are_told_before_vllm_starts(
    serving: Served, tmp_path: Path
) -> None:
    good = serving.run / "serving" / "adapter"
    cut = tmp_path / "cut"
    shutil.copytree(good, cut)
    os.truncate(cut / "adapter_model.safetensors", 5000)
    told = serving.verb(
        "serve", SFT_SERVE_PORT=str(free_port()),
        SFT_SERVE_LORA_MODULES=f"cut={cut},gone=/nowhere,tiny-llama={good},fine={good}",
    )  # fmt: skip
    assert told.code == 6
    assert "starting vLLM" not in told.err
    lines = [line.split("SFT_SERVE_LORA_MODULES: ")[1] for line in told.err.splitlines()]
    assert [line.split()[0] for line in lines] == ["cut:", "gone:", f"'tiny-llama={good}'"]


def test_sigterm_lets_an_answer_end(serving: Served) -> None:
    """Last of this server's: the stop comes in the middle of an answer."""
    question = {
        "model": "tiny-llama", "prompt": "a", "max_tokens": 150, "ignore_eos": True, "stream": True,
    }  # fmt: skip
    ends = []
    with serving.client() as client, client.stream("POST", "/v1/completions", json=question) as got:
        for line in got.iter_lines():
            if line.startswith("data: {"):
                ends += [c["finish_reason"] for c in json.loads(line[len("data: ") :])["choices"]]
                if len(ends) == 1:
                    serving.start.signal()
    assert ends[-1] == "length", "the answer was cut off"
    assert serving.start.wait().code == 0
    folder = serving.entrypoint.folder
    assert (folder / "termination").read_text() == "serve: vLLM drained and ended"
    assert not serving.start.left_over()


def test_a_restart_trains_nothing_and_can_be_stopped_while_vllm_starts(serving: Served) -> None:
    """vLLM swallows the first SIGTERM of those that come while it starts."""
    log = Path(read(serving.run / "run.json")["logs"]) / "serve" / "run.log"
    size = log.stat().st_size
    again = serving.entrypoint.start(**serving.environ)
    again.until(lambda: log.stat().st_size > size)
    again.signal()
    result = again.wait()
    assert result.code in (143, 0)
    assert "train:" not in result.err
    assert not again.left_over()


def test_an_adapter_that_answers_otherwise_is_not_complete(serving: Served) -> None:
    """The served adapter is damaged so that every check of files passes."""
    path = serving.run / "serving" / "adapter" / "adapter_model.safetensors"
    kept = path.with_name("kept")
    shutil.copy(path, kept)
    tensors: dict[str, Any] = load_file(kept)
    path.unlink()  # its bytes are the trained adapter's too
    save_file({k: v * 1.05 if "lora_B" in k else v for k, v in tensors.items()}, path)
    wrong = serving.verb("parity")
    assert wrong.code == 6
    assert "vLLM does not answer as trained: answer " in wrong.err
    assert not (serving.run / ".complete").exists()


def test_the_flags_are_those_of_the_installed_vllm(tmp_path: Path) -> None:
    python = str(ROOT / ".venv-serve" / "bin" / "python")
    shown = execute(
        [python, "-m", "envtune.engine.snapshots.vllm_flags", "--show"], tmp_path, clean_environ()
    )
    assert json.loads(shown.out) == upstream.vllm(), "`make generate` writes them"

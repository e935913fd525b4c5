"""The guard alone, before an app that answers everything, and whom a server may answer."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from envtune.machine import ports
from envtune.redaction import Secret
from envtune.render import launch
from envtune.serve import access, guard, vllm_config
from envtune.serve.models import Served
from tests.harness import clean_environ
from tests.unit.builders import MODEL_AND_DATA, here, load, make_facts

KEY = "planted, 5e1f0c77aa"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE")
ODD = (
    "/", "/v1/models", "/invocations", "/tokenize", "/docs", "/openapi.json", "/metrics/",
    "/metricsfoo", "/health/", "//health", "/HEALTH", "/health/../version", "/health%2f..%2fv",
    "/health%00", "/health;a", "/nope",
)  # fmt: skip


async def _reached(request: Any) -> PlainTextResponse:
    return PlainTextResponse("reached")


async def _socket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("reached")
    await socket.close()


def client(monkeypatch: pytest.MonkeyPatch, opened: str = "/health", root: str = "") -> TestClient:
    monkeypatch.setenv("VLLM_API_KEY", KEY)
    monkeypatch.setenv(guard.OPEN, opened)
    everything = Route("/{path:path}", _reached, methods=list(METHODS))
    app = Starlette(routes=[WebSocketRoute("/{path:path}", _socket), everything])
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"])
    app.add_middleware(guard.Guard)  # type: ignore[arg-type]
    return TestClient(app, root_path=root)


WRONG: list[dict[str, Any]] = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": f"Bearer not-{KEY}"},
    {"Authorization": f"Bearer  {KEY}"},
    {"Authorization": f"Basic {KEY}"},
    {"Authorization": KEY},
    {"Authorization": "Bearer planted"},
    {"Authorization": b"Bearer \xff\xfe"},
    {"Authorization": "Bearer " + "k" * 100_000},
    {"X-Api-Key": KEY},
]


@pytest.mark.parametrize("headers", WRONG, ids=lambda headers: str(headers)[:40])
def test_nothing_but_health_is_answered_without_the_key(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, Any]
) -> None:
    asked = client(monkeypatch)
    for method in METHODS:
        for path in (*ODD, "/metrics", "/health"):
            answer = asked.request(method, path, headers=headers)
            open_ = (method, path) == ("GET", "/health")
            assert (answer.status_code == 200) == open_, (method, path)
            assert open_ or answer.status_code == 401
    assert asked.get("/health?verbose=1", headers=headers).status_code == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_key_opens_everything(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    asked = client(monkeypatch)
    for method in METHODS:
        for path in ("/v1/models", "/docs", "/metrics", "/health"):
            answer = asked.request(method, path, headers={"Authorization": f"{scheme} {KEY}"})
            assert answer.status_code == 200, (method, path)


def test_the_first_of_two_keys_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = client(monkeypatch)
    good, bad = ("Authorization", f"Bearer {KEY}"), ("Authorization", "Bearer x")
    assert asked.get("/docs", headers=[good, bad]).status_code == 200
    assert asked.get("/docs", headers=[bad, good]).status_code == 401


def test_a_websocket_shows_the_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = client(monkeypatch)
    for path in ("/v1/realtime", "/health"):
        with pytest.raises(WebSocketDisconnect), asked.websocket_connect(path):
            pass
    with asked.websocket_connect("/v1/realtime", headers={"Authorization": f"Bearer {KEY}"}) as to:
        assert to.receive_text() == "reached"


PREFLIGHT = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}


@pytest.mark.parametrize(
    ("opened", "headers", "code"),
    [
        ("/health", PREFLIGHT, 401),
        ("/health preflight", PREFLIGHT, 200),
        ("/health preflight", {"Origin": "http://a"}, 401),
        ("/health preflight", {"Access-Control-Request-Method": "POST"}, 401),
    ],
)
def test_a_preflight_passes_where_browsers_may_ask(
    monkeypatch: pytest.MonkeyPatch, opened: str, headers: dict[str, str], code: int
) -> None:
    asked = client(monkeypatch, opened)
    assert asked.options("/v1/chat/completions", headers=headers).status_code == code
    assert asked.get("/v1/models", headers=headers).status_code == 401


def test_metrics_are_opened_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = client(monkeypatch, "/health /metrics")
    assert asked.get("/metrics").status_code == 200
    for method, path in (("POST", "/metrics"), ("GET", "/metrics/"), ("GET", "/metricsfoo")):
        assert asked.request(method, path).status_code == 401


@pytest.mark.parametrize(
    ("path", "code"),
    [("/api/health", 200), ("/health", 200), ("/apihealth", 401), ("/api/v1/models", 401)],
)
def test_a_proxys_path_may_stand_before_it(
    monkeypatch: pytest.MonkeyPatch, path: str, code: int
) -> None:
    """As FastAPI passes --root-path on: in the scope, with the path as it came."""
    client(monkeypatch)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("reached")(scope, receive, send)

    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "root_path": "/api", "headers": []}
    asyncio.run(guard.Guard(app)(scope, None, send))  # type: ignore[arg-type]
    assert told[0]["status"] == code


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_guard_without_a_key_lets_nobody_start(
    monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    asked = client(monkeypatch)
    monkeypatch.delenv("VLLM_API_KEY")
    if key is not None:
        monkeypatch.setenv("VLLM_API_KEY", key)
    with pytest.raises(RuntimeError, match="VLLM_API_KEY is not set"):
        asked.get("/health")


@pytest.mark.parametrize(
    ("host", "beyond"),
    [
        ("127.0.0.1", False), ("127.1.2.3", False), ("::1", False), ("localhost", False),
        ("127.1", False), ("0.0.0.0", True), ("0", True), ("::", True), ("", True),
        ("10.0.0.1", True), ("fe80::1", True), ("nowhere.invalid", True), ("a..b", True),
        ("\0", True), ("[::1]", True), ("*", True),
    ],
)  # fmt: skip
def test_what_is_not_known_to_be_this_machine_is_reached_by_others(host: str, beyond: bool) -> None:
    assert ports.beyond_loopback(host) is beyond


ANYWHERE = {"SFT_SERVE_HOST": "0.0.0.0"}
KEYED = {"VLLM_API_KEY": "planted-5e1f0c77aa"}
REACHED = "SFT_SERVE_HOST: {} is reached by others, and without a key they are all answered; set VLLM_API_KEY, or SFT_SERVE_OPEN=true"
ACCESS: list[tuple[dict[str, str], list[str]]] = [
    ({}, []),
    (KEYED, []),
    (ANYWHERE, [REACHED.format("0.0.0.0")]),
    ({"SFT_SERVE_HOST": "::"}, [REACHED.format("::")]),
    ({"SFT_SERVE_HOST": "nowhere.invalid"}, [REACHED.format("nowhere.invalid")]),
    ({"SFT_SERVE_ARGS": '{"host": "0"}'}, [REACHED.format("0")]),
    ({"SFT_SERVE_ARGS": '{"host": ""}'}, [REACHED.format("every address")]),
    ({**ANYWHERE, **KEYED}, []),
    ({**ANYWHERE, "VLLM_API_KEY": ""}, [REACHED.format("0.0.0.0")]),
    ({**ANYWHERE, "VLLM_API_KEY": " \t"}, [REACHED.format("0.0.0.0")]),
    ({**ANYWHERE, "SFT_SERVE_OPEN": "true"}, []),
    ({**ANYWHERE, "SFT_SERVE_OPEN": "false"}, [REACHED.format("0.0.0.0")]),
    ({"VLLM_SERVER_DEV_MODE": "1"}, []),
    ({**ANYWHERE, **KEYED, "VLLM_SERVER_DEV_MODE": "1"}, []),
    ({**ANYWHERE, "SFT_SERVE_OPEN": "1", "VLLM_SERVER_DEV_MODE": "1"}, ["VLLM_SERVER_DEV_MODE: lets everybody"]),
    ({**ANYWHERE, "SFT_SERVE_OPEN": "1", "VLLM_SERVER_DEV_MODE": "0"}, []),
    ({**ANYWHERE, "SFT_SERVE_OPEN": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}, ["VLLM_ALLOW_RUNTIME_LORA_UPDATING: lets"]),
    ({**KEYED, "VLLM_USE_RUST_FRONTEND": "1"}, ["VLLM_USE_RUST_FRONTEND: starts a server that asks for no key"]),
    ({**KEYED, "VLLM_USE_RUST_FRONTEND": "0"}, []),
    ({"VLLM_USE_RUST_FRONTEND": "1"}, []),
    ({**KEYED, "SFT_SERVE_GRPC_PORT": "9000"}, ["SFT_SERVE_GRPC_PORT: starts a server that asks"]),
    ({**KEYED, "SFT_SERVE_DATA_PARALLEL_MULTI_PORT_EXTERNAL_LB": "1"}, ["SFT_SERVE_DATA_PARALLEL_MULTI_PORT_EXTERNAL_LB: starts"]),
    ({"SFT_SERVE_API_KEY": "a-key-of-mine"}, ["SFT_SERVE_API_KEY: set VLLM_API_KEY"]),
    ({"SFT_SERVE_GRPC": "1"}, ["SFT_SERVE_GRPC: the server is asked over HTTP"]),
    ({"SFT_SERVE_UDS": "/tmp/s"}, ["SFT_SERVE_UDS: the server is asked over its port"]),
    ({"VLLM_API_KEY": "a,b"}, []),
    ({"VLLM_API_KEY": "two words"}, []),
    ({"VLLM_API_KEY": "a-line\n"}, ["VLLM_API_KEY: no header carries it"]),
    ({"VLLM_API_KEY": "schlüssel"}, ["VLLM_API_KEY: no header carries it"]),
]  # fmt: skip


@pytest.mark.parametrize(("environ", "lines"), ACCESS, ids=lambda part: str(part)[:60])
def test_whom_a_server_would_answer_is_judged_before_training(
    environ: dict[str, str], lines: list[str]
) -> None:
    told = [
        str(p)
        for p in _judged({**environ, "SFT_SERVE": "1"})
        if "SERVE" in p.name or "VLLM" in p.name
    ]
    told = [
        line
        for line in told
        if "in an environment of its own" not in line and "SFT_SERVE_PORT" not in line
    ]
    assert len(told) == len(lines), told
    for line, start in zip(told, lines, strict=True):
        assert line.startswith(start)
        assert "a-key-of-mine" not in line


def test_where_nothing_is_served_nobody_is_answered() -> None:
    assert not [p for p in _judged(ANYWHERE) if p.name == "SFT_SERVE_HOST"]


def _judged(environ: dict[str, str]) -> list[Any]:
    full = {**MODEL_AND_DATA, **environ}
    facts = make_facts()
    return list(here(load(full), type(facts)(**{**vars(facts), "environ": full})))


def test_the_guard_is_outermost_and_displaces_nobody() -> None:
    flags = {"middleware": ["mine.One", "mine.Two"], "allowed_origins": ["http://a"]}
    keyed = {"VLLM_API_KEY": Secret("planted")}
    assert access.middleware(flags, keyed) == ("mine.One", "mine.Two", "envtune.serve.guard.Guard")
    assert access.middleware(flags, {}) == ("mine.One", "mine.Two")
    assert access.middleware({}, {"VLLM_API_KEY": Secret(" ")}) == ()
    served = Served(Path("/m"), ("r",), "model", {})
    told = vllm_config.config(served, flags, vllm_config.Place("cpu", 0, 2**30, 9))
    assert "middleware" not in told, "of a list in the file vLLM takes the first alone"
    assert told["allowed_origins"] == '["http://a"]', "what vLLM reads from JSON"
    plan = launch.serve(Path("/c.yaml"), Path("/python"), Path("/run"), keyed, None)
    assert launch.guarded(plan, ("a.B", "c.D")).argv[-4:] == (
        "--middleware",
        "a.B",
        "--middleware",
        "c.D",
    )
    assert access.opened(flags, lambda name: True) == ("/health", "/metrics", "preflight")
    assert access.opened({}, lambda name: False) == ("/health",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (access.GUARD, ""),
        ("nosuch.Middleware", "nosuch.Middleware: ModuleNotFoundError: No module named 'nosuch'"),
        ("envtune.serve.guard:Guard", "AttributeError"),
        ("Guard", "ValueError"),
        ("envtune.serve.guard.Gard", "AttributeError"),
        ("envtune.serve.guard.unusable", "is neither a class nor a coroutine function"),
        ("mine.Middleware", "mine.Middleware: SystemExit: 3"),
        ("this.s", ""),
    ],
)
def test_what_vllm_could_not_import_is_told_by_its_python(
    tmp_path: Path, name: str, said: str
) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit(3)\n")
    (tmp_path / "this.py").write_text("print('hello')\nasync def s(request, following): ...\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "envtune.serve.guard", name],
        check=False, env={**clean_environ(), "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (bool(said), "")
    assert said in done.stdout.splitlines()[-1]


def test_the_guard_needs_nothing_that_vllms_environment_may_lack() -> None:
    code = (
        "import sys; before = set(sys.modules); import envtune.serve.guard; "
        "print(*{m.split('.')[0] for m in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["envtune"]

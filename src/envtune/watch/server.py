"""The live page of a run, its figures and its health by HTTP: read-only, and never in the way.

It works in the supervisor, on threads of its own. What it shows is made at most once a second,
however many ask; a port that is taken or a page that fails costs a warning and nothing else.
"""

import hashlib
import hmac
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from envtune.events import Follower
from envtune.redaction import redact
from envtune.watch import metrics, report, screen
from envtune.watch.story import Story

LOG = logging.getLogger("envtune")
# Seconds that an answer holds, and that a reader may take for its request.
_HOLDS, _PATIENCE = 1.0, 10.0
_HTML, _JSON, _TEXT = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
_METRICS = "text/plain; version=0.0.4; charset=utf-8"
# No script, nothing from elsewhere, in nobody's frame.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Answers:
    """What is answered to a path, from the events of the run in `folder`.

    A training counts as hung after `silence` seconds without a word, or after `paces` times what
    lies between two of its steps, whichever is later.
    """

    def __init__(
        self, folder: Path, secrets: tuple[str, ...] = (), silence: float = 600.0, paces: float = 20
    ) -> None:
        self.folder, self.secrets = folder, secrets
        self.silence, self.paces = silence, paces
        self.told, self.follower = Story(), Follower(folder)
        self.lock, self.kept = threading.Lock(), dict[str, tuple[float, tuple[int, str, bytes]]]()

    def get(self, path: str) -> tuple[int, str, bytes]:
        """Status, content type and body."""
        make = _PATHS.get(path)
        if make is None:
            return 404, _TEXT, b"there are /, /status.json, /healthz and /metrics\n"
        with self.lock:
            at, answer = self.kept.get(path, (-_HOLDS, (0, "", b"")))
            if time.monotonic() >= at + _HOLDS:
                self.told.feed(self.follower.new())
                answer = make(self)
                self.kept[path] = (time.monotonic(), answer)
            return answer

    def page(self) -> tuple[int, str, bytes]:
        """The report as it would be written now."""
        return 200, _HTML, redact(report.page(self.folder, live=True), self.secrets).encode()

    def status(self) -> tuple[int, str, bytes]:
        """How the run stands, for a script."""
        told = self.told
        found = {
            "run": told.run, "state": report.state(told), "step": told.step,
            "max_steps": told.max_steps, "left_seconds": round(screen.left(told), 1),
            "last": dict(told.last), "best": told.best and dict(told.best),
            "starts": len(told.starts), "warnings": [dict(e) for e in told.warnings[-5:]],
            "outcome": told.outcome and dict(told.outcome), "time": told.time,
        }  # fmt: skip
        return 200, _JSON, json.dumps(found).encode() + b"\n"

    def health(self) -> tuple[int, str, bytes]:
        """503 once a training has been silent for too long, or has failed."""
        told, silent = self.told, time.time() - self.told.time
        line = max(self.silence, self.paces * told.pace)
        if told.phase == "training" and told.outcome is None and silent > line:
            return 503, _TEXT, f"no step for {silent:.0f} s\n".encode()
        if told.outcome is not None and told.outcome["exit"]:
            return 503, _TEXT, f"exit {told.outcome['exit']}\n".encode()
        return 200, _TEXT, f"{report.state(told)}\n".encode()

    def metrics(self) -> tuple[int, str, bytes]:
        """For Prometheus."""
        return 200, _METRICS, metrics.text(lambda: (self.told, time.time()))


_PATHS: Mapping[str, Callable[[Answers], tuple[int, str, bytes]]] = {
    "/": Answers.page,
    "/status.json": Answers.status,
    "/healthz": Answers.health,
    "/metrics": Answers.metrics,
}


class LivePage:
    """Listens while the block runs. Where the port cannot be had, it says so and does not."""

    def __init__(self, answers: Answers, host: str, port: int | None, token: str) -> None:
        self.answers, self.host, self.port, self.token = answers, host, port, token
        self.server: ThreadingHTTPServer | None = None

    def __enter__(self) -> "LivePage":
        if self.port is None:
            return self
        handler = type("Handler", (_Handler,), {"answers": self.answers, "token": self.token})
        try:
            family = _SixServer if ":" in self.host else _Server
            self.server = family((self.host, self.port), handler)
        except OSError as error:
            LOG.warning("no live page: %s:%d: %s", self.host, self.port, error.strerror)
            return self
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        where = f"[{self.host}]" if ":" in self.host else self.host
        LOG.info("live page: http://%s:%d/", where, self.server.server_address[1])
        return self

    def __exit__(self, *exception: object) -> None:
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a slow reader keeps no run from its end
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away, or a page that failed: nobody's business but a debugger's."""
        LOG.debug("the live page failed for %s", client_address, exc_info=True)


class _SixServer(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    """GET and HEAD of Answers' paths, for whoever shows the token where there is one."""

    answers: Answers
    token: str
    timeout = _PATIENCE
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "envtune", ""

    def do_GET(self) -> None:
        """Answers; the health needs no token, since what asks for it has none."""
        parts = urlsplit(self.path)
        if parts.path != "/healthz" and not self._may(parts.query):
            return self._send(401, _TEXT, b"a token is asked for: Authorization: Bearer\n")
        try:
            return self._send(*self.answers.get(parts.path))
        except Exception as error:  # a page that fails fails no run
            LOG.debug("the live page failed", exc_info=True)
            return self._send(500, _TEXT, f"{type(error).__name__}\n".encode())

    do_HEAD = do_GET

    def _may(self, query: str) -> bool:
        if not self.token:
            return True
        shown = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        shown = shown or parse_qs(query).get("token", [""])[0]
        digests = (hashlib.sha256(text.encode()).digest() for text in (shown, self.token))
        return hmac.compare_digest(*digests)

    def _send(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        told = {"Content-Type": kind, "Content-Length": str(len(body)), **_HEADERS}
        for name, value in told.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Readers are not logged: their addresses may hold a token."""

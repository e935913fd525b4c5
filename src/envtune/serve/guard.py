"""The door in vLLM's own process: whoever does not show the key gets 401, whatever is asked for.

vLLM 0.32 asks for its key below /v1 and three more prefixes alone (vllm-project/vllm#58144):
/invocations answers, /tokenize, /docs and others. The last `--middleware` sees every request
before vLLM does. As a program it says whether this Python can import what it is to be given,
which vLLM would say after its engine has started.

vLLM's environment imports it, so it needs nothing but the standard library.
"""

import hashlib
import hmac
import importlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# What needs no key, with spaces between: paths that are got, and a browser's preflights.
OPEN = "ENVTUNE_SERVE_OPEN"
HEALTH, METRICS, PREFLIGHT = "/health", "/metrics", "preflight"
_BODY = b'{"error":"Unauthorized"}'
_HEADERS = (
    (b"content-type", b"application/json"),
    (b"content-length", str(len(_BODY)).encode()),
    (b"www-authenticate", b"Bearer"),
)
# With both of them vLLM's CORS answers, and no route is reached.
_OF_A_PREFLIGHT = {b"origin", b"access-control-request-method"}


class Guard:
    """ASGI middleware. Raises RuntimeError where there is no key to ask for."""

    def __init__(self, app: App) -> None:
        key = os.environ.get("VLLM_API_KEY", "")
        if not key.strip():
            raise RuntimeError("VLLM_API_KEY is not set, and the guard has nothing to ask for")
        said = os.environ.get(OPEN, HEALTH).split()
        self.app, self.key = app, _digest(key.encode())
        self.paths = {path for path in said if path.startswith("/")}
        self.preflights = PREFLIGHT in said

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._may(scope):
            await self.app(scope, receive, send)
        else:
            await _refuse(scope, send)

    def _may(self, scope: Scope) -> bool:
        headers = dict(reversed(list(scope["headers"])))  # the first of a name counts, as in vLLM
        if scope["type"] == "http" and self._is_open(scope, headers):
            return True
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(_digest(key), self.key)

    def _is_open(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Paths are compared whole: vLLM answers /metricsfoo as /metrics."""
        path, root = scope["path"], scope.get("root_path", "").rstrip("/")
        if scope["method"] == "OPTIONS":
            return self.preflights and headers.keys() >= _OF_A_PREFLIGHT
        return scope["method"] == "GET" and not self.paths.isdisjoint(
            (path, path.removeprefix(root))
        )


def _digest(key: bytes) -> bytes:
    """Of one length whatever the key's, so that the comparison takes one time."""
    return hashlib.sha256(key).digest()


async def _refuse(scope: Scope, send: Send) -> None:
    """401, also in place of a websocket's handshake."""
    kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
    await send({"type": f"{kind}.start", "status": 401, "headers": list(_HEADERS)})
    await send({"type": f"{kind}.body", "body": _BODY})


def unusable(names: Sequence[str]) -> Iterator[str]:
    """What vLLM would say of each `package.module.Name` that it cannot put before its routes."""
    for name in names:
        module, _, last = name.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), last)
        except (Exception, SystemExit) as error:  # a module may raise whatever it likes
            yield f"{name}: {type(error).__name__}: {error}"
            continue
        if not inspect.isclass(found) and not inspect.iscoroutinefunction(found):
            yield f"{name}: is neither a class nor a coroutine function"


if __name__ == "__main__":
    wrong = [" ".join(line.split()) for line in unusable(sys.argv[1:])]
    print("; ".join(wrong))
    sys.exit(bool(wrong))

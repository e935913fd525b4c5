"""Asks every route of a server as somebody who has no key, and as one who has another."""

import re
from collections.abc import Iterator
from itertools import product

import httpx

from envtune.serve.api import Api

# What vLLM 0.32 has and its openapi.json does not list, what no server has, and names that some
# web servers take for another path.
_UNLISTED = (
    "/", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json", "/metrics", "/metrics/",
    "/metricsfoo", "/nope", "/inference/v1/generate", "/abort_requests",
    "/v1/chat/completions/render", "/v1/completions/render", "/v1/chat/completions/derender",
    "/v1/load_lora_adapter", "/server_info", "/sleep", "/collective_rpc", "/health/", "//health",
    "/HEALTH", "/health/../version", "/health%2f..%2fversion",
)  # fmt: skip
_UPGRADE = "websocket"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", _UPGRADE)
_WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def paths(api: Api) -> list[str]:
    """Every path of a server, with something in place of each {name}."""
    with api.client() as client:
        answer = client.get("/openapi.json")
    listed: list[str] = []
    if answer.status_code != httpx.codes.NOT_FOUND:  # the user may have turned it off
        answer.raise_for_status()
        listed = [re.sub(r"\{[^}]*\}", "x", path) for path in answer.json()["paths"]]
    return list(dict.fromkeys((*api.opened, *listed, *_UNLISTED)))


def wrong(api: Api, asked: list[str]) -> Iterator[str]:
    """What answers somebody without the key that should not, and the reverse."""
    for who, key in (("without a key", ""), ("with a wrong key", f"not-{api.key}")):
        with Api(api.url, key).client() as client:
            for path, method in product(asked, METHODS):
                free = path in api.opened and method == "GET"
                code = _code(client, path, method)
                if free != (code != httpx.codes.UNAUTHORIZED):
                    yield f"{method} {path} answers {code} {who}"


def _code(client: httpx.Client, path: str, method: str) -> int:
    """The path goes out as it is written. One connection a question: one that is kept may be
    closed in between."""
    upgrade = method == _UPGRADE
    headers = _WEBSOCKET if upgrade else {"Connection": "close"}
    target = {"target": path.encode()}
    answer = client.request("GET" if upgrade else method, "/", headers=headers, extensions=target)
    return int(answer.status_code)

"""A server as a client of its own sees it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

_STREAM = "data: "


@dataclass(frozen=True)
class Api:
    """A server's address, its key and the paths that it answers without. It is ours: no proxy is
    asked, and its certificate, if it has one, is made out to another name."""

    url: str
    key: str = ""
    opened: tuple[str, ...] = ()

    def client(self, timeout: float = 120.0) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return httpx.Client(
            base_url=self.url, headers=headers, timeout=timeout, trust_env=False, verify=False
        )

    def healthy(self) -> bool:
        try:
            with self.client(5.0) as client:
                return bool(client.get("/health").status_code == httpx.codes.OK)
        except httpx.HTTPError:
            return False

    def listens(self) -> bool:
        """Whether anybody answers there, in whatever way."""
        try:
            with self.client(5.0) as client:
                client.get("/health")
        except httpx.ConnectError:
            return False
        except httpx.HTTPError:
            return True
        return True

    def post(self, path: str, question: Mapping[str, Any]) -> dict[str, Any]:
        """The answer. Raises httpx.HTTPError where the server refuses or does not answer."""
        with self.client() as client:
            answer = client.post(path, json=dict(question))
        answer.raise_for_status()
        told: dict[str, Any] = answer.json()
        return told

    def stream(self, path: str, question: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """The pieces of an answer as they come, each with how it ended, which is empty before the
        last. Raises httpx.HTTPError, and LookupError or ValueError for what is no such stream."""
        asked = {**question, "stream": True}
        with self.client() as client, client.stream("POST", path, json=asked) as got:
            if got.is_error:
                got.read()
            got.raise_for_status()
            for line in got.iter_lines():
                if line.startswith(_STREAM) and line != f"{_STREAM}[DONE]":
                    yield from _pieces(json.loads(line.removeprefix(_STREAM)))


def _pieces(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for choice in told["choices"]:
        text = choice["text"] if "text" in choice else choice["delta"].get("content")
        yield text or "", choice.get("finish_reason") or ""


def reason(error: Exception) -> str:
    """What a request came to, on one line."""
    if isinstance(error, httpx.HTTPStatusError):
        return " ".join(f"{error.response.status_code} {error.response.text}".split())[:500]
    return f"{type(error).__name__}: {error}"

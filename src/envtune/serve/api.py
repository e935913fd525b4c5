"""A server as a client of its own sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx


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


def reason(error: Exception) -> str:
    """What a request came to, on one line."""
    if isinstance(error, httpx.HTTPStatusError):
        return " ".join(f"{error.response.status_code} {error.response.text}".split())[:500]
    return f"{type(error).__name__}: {error}"

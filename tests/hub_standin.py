"""A stand-in for the Hub, which no test can reach, behind HF_ENDPOINT on loopback.

It answers what huggingface_hub and datasets ask when they read, with the Hub's statuses
and headers (X-Error-Code, X-Error-Message, X-Repo-Commit, ETag). Every file is served
straight, as the Hub does with small ones.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests.harness import Quiet, serving

COMMIT = "5ca1ab1e" * 5
_API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+)/?(.*))?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code


@dataclass
class Repo:
    """A repository: its files, who may read it, and the Hub's words to others where gated."""

    folder: Path
    readers: frozenset[str] | None = None
    gate: str = ""

    def open_to(self, user: str | None) -> bool:
        return self.readers is None or user in self.readers

    def told(self, id_: str) -> dict[str, Any]:
        """What the API says of a repository; of a gated one to everybody."""
        names = [{"rfilename": entry["path"]} for entry in self.tree("")]
        return {"id": id_, "sha": COMMIT, "siblings": names, "tags": [], "downloads": 0}

    def tree(self, inside: str) -> list[dict[str, Any]]:
        if inside:
            raise _Refused(404, f"{inside} does not exist", "EntryNotFound")
        return [
            {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _digest(path)}
            for path in sorted(self.folder.iterdir())
        ]


@dataclass
class Hub:
    """What the stand-in holds and what it was asked.

    `users` maps tokens to what whoami tells; `repos` (kind, id) to repositories. `trouble`
    is a status, or close, hang or drip, for the first `troubles` requests.
    """

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    trouble: str = ""
    troubles: int = 1_000_000
    seen: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)


class _Handler(Quiet):
    hub: Hub

    def do_GET(self) -> None:
        self.hub.seen.append(f"{self.command} {self.path}")
        if self.hub.trouble and len(self.hub.seen) <= self.hub.troubles:
            self._trouble()
            return
        try:
            self._route(unquote(urlsplit(self.path).path))
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._json({"error": refused.message}, refused.status, headers)

    do_HEAD = do_GET

    def _trouble(self) -> None:
        if self.hub.trouble == "hang":
            self.hub.ended.wait()
        if self.hub.trouble == "drip":
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):  # whoever asked has gone away
                while not self.hub.ended.wait(0.5):
                    self.wfile.write(b" ")
        if self.hub.trouble.isdigit():
            self._json({"error": "trouble"}, int(self.hub.trouble), {})
        self.close_connection = True

    def _route(self, path: str) -> None:
        user = self._user()
        if path == "/api/whoami-v2":
            if user is None:
                raise _Refused(401, "Invalid username or password.")
            self._json(user)
        elif match := _FILE.fullmatch(path):
            kind = "dataset" if match[1] else "model"
            self._file(self._repo(kind, match[2], match[3], user, gated=True), match[4])
        elif match := _API.fullmatch(path):
            tree = match[3] == "tree"
            repo = self._repo(match[1], match[2], match[4] or "main", user, gated=tree)
            self._json(repo.tree(match[5]) if tree else repo.told(match[2]))
        else:
            raise _Refused(404, "Sorry, we can't find the page you are looking for.")

    def _user(self) -> dict[str, Any] | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.hub.users:
            raise _Refused(401, "Invalid credentials in Authorization header")
        return self.hub.users.get(given)

    def _repo(
        self, kind: str, id_: str, revision: str, user: Mapping[str, Any] | None, *, gated: bool
    ) -> Repo:
        repo, name = self.hub.repos.get((kind, id_)), user["name"] if user else None
        if repo is None or not (repo.gate or repo.open_to(name)):
            if user is None:
                raise _Refused(401, "Invalid username or password.", "RepoNotFound")
            raise _Refused(404, "Repository not found", "RepoNotFound")
        if revision not in ("main", COMMIT):
            raise _Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        if gated and not repo.open_to(name):
            status = 401 if user is None else 403
            raise _Refused(
                status, f"Access to {kind} {id_} is restricted. {repo.gate}", "GatedRepo"
            )
        return repo

    def _file(self, repo: Repo, name: str) -> None:
        path = repo.folder / name
        if not path.is_file():
            raise _Refused(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_digest(path)}"'}
        self._send(path.read_bytes(), 200, {**headers, "Content-Type": "application/octet-stream"})

    def _json(
        self, value: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        head = {"Content-Type": "application/json", **(headers or {})}
        self._send(json.dumps(value).encode(), status, head)

    def _send(self, body: bytes, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, text in headers.items():
            if text:
                self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _digest(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def hub() -> Iterator[Hub]:
    """An empty Hub while the block runs."""
    held = Hub()
    with serving(type("Handler", (_Handler,), {"hub": held})) as url:
        held.url = url
        try:
            yield held
        finally:
            held.ended.set()

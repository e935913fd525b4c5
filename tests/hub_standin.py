"""A stand-in for the Hub, which no test can reach, behind HF_ENDPOINT on loopback.

It answers what huggingface_hub and datasets ask when they read, with the Hub's statuses
and headers (X-Error-Code, X-Error-Message, X-Repo-Commit, ETag). Every file is served
straight, as the Hub does with small ones, from any byte on. What it takes when it is written
to is in `hub_writing`.
"""

import functools
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

from tests import hub_writing
from tests.harness import Quiet, serving
from tests.hub_writing import Disk, Wrong

COMMIT = "5ca1ab1e" * 5
_API = re.compile(r"/api/(model|dataset)s/([^/]+/[^/]+?)(?:/(revision|tree)/([^/]+)/?(.*))?")
_XET = "/api/xet-read-token"
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")


class _Refused(Exception):
    def __init__(self, status: int, message: str, code: str = "") -> None:
        self.status, self.message, self.code = status, message, code


@dataclass
class Repo:
    """A repository: its files, who may read it, and the Hub's words to others where gated.

    `claimed` are files with a size and no bytes; `xet`: the large ones lie in Xet's storage
    too.
    """

    folder: Path
    readers: frozenset[str] | None = None
    gate: str = ""
    claimed: Mapping[str, int] = field(default_factory=dict)
    xet: bool = False

    def open_to(self, user: str | None) -> bool:
        return self.readers is None or user in self.readers

    def told(self, id_: str) -> dict[str, Any]:
        """What the API says of a repository; of a gated one to everybody."""
        names = [
            {
                "rfilename": path.name,
                "size": path.stat().st_size,
                "blobId": _digest(path),
                **_lfs(path),
            }
            for path in sorted(self.folder.iterdir())
        ]
        names += [{"rfilename": name, "size": size} for name, size in self.claimed.items()]
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
    is a status, or close, hang or drip, for the first `troubles` requests of each path.

    `disk` is where it is written to. `faults` are met in order, each once: how a request
    begins, and a status, one with Retry-After ("429 2"), cut (in the middle of the body),
    stall there or hold until `go`, or hang; `hidden` are files that no listing shows.
    """

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    trouble: str = ""
    troubles: int = 1_000_000
    seen: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)
    disk: Disk | None = None
    faults: list[tuple[str, str]] = field(default_factory=list)
    hidden: set[str] = field(default_factory=set)


class _Handler(Quiet):
    hub: Hub
    broken = ""

    def do_GET(self) -> None:
        request = f"{self.command} {self.path} {self.headers.get('Range', '')}".strip()
        self.hub.seen.append(request)
        if self.hub.trouble and self.hub.seen.count(request) <= self.hub.troubles:
            self._trouble()
            return
        if self._faulty():
            return
        try:
            self._route(unquote(urlsplit(self.path).path))
        except _Refused as refused:
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.message}
            self._json({"error": refused.message}, refused.status, headers)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.hub.seen.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        if self._faulty():
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        assert self.hub.disk is not None
        try:
            if self.command == "PUT":
                hub_writing.put(self.hub.disk, path, body)
                self._json({})
            else:
                self._json(
                    hub_writing.answer(self.hub.disk, self.hub.url, self._user(), path, body)
                )
        except (Wrong, _Refused) as wrong:
            more = wrong.more if isinstance(wrong, Wrong) else {}
            headers = {"X-Error-Code": wrong.code, "X-Error-Message": wrong.message}
            self._json({"error": wrong.message, **more}, wrong.status, headers)

    do_PUT = do_POST

    def _faulty(self) -> bool:
        """Meets the next fault, if this request is the one that it waits for."""
        start, fault = self.hub.faults[0] if self.hub.faults else ("none", "")
        if not f"{self.command} {self.path}".startswith(start):
            return False
        self.hub.faults.pop(0)
        if self.command == "GET" and fault in ("cut", "stall", "hold"):
            self.broken = fault
            return False
        size = int(self.headers.get("Content-Length", 0))
        if fault.isdigit():
            self.rfile.read(size)
            self._json({"error": "trouble"}, int(fault), {})
        elif " " in fault:
            status, seconds = fault.split()
            self._json({"error": "trouble"}, int(status), {"Retry-After": seconds})
        elif fault == "cut":
            self.rfile.read(size // 2)
        else:
            self.hub.ended.wait()
        self.close_connection = True
        return True

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
        elif path == _XET:
            told = {"X-Xet-Cas-Url": self.hub.url, "X-Xet-Access-Token": "t"}
            self._json({}, 200, {**told, "X-Xet-Token-Expiration": "9999999999"})
        elif match := _FILE.fullmatch(path):
            kind = "dataset" if match[1] else "model"
            self._file(self._repo(kind, match[2], match[3], user, gated=True), match[4])
        elif match := _API.fullmatch(path):
            tree = match[3] == "tree"
            if match[1] == "model" and self._written(match[2], tree=tree):
                return
            repo = self._repo(match[1], match[2], match[4] or "main", user, gated=tree)
            self._json(repo.tree(match[5]) if tree else repo.told(match[2]))
        else:
            raise _Refused(404, "Sorry, we can't find the page you are looking for.")

    def _written(self, id_: str, *, tree: bool) -> bool:
        """Answers for a repository that was written here."""
        disk = self.hub.disk
        if disk is None or not disk.folder(id_).is_dir():
            return False
        held = hub_writing.entries(disk.folder(id_))
        shown = [entry for entry in held if entry["path"] not in self.hub.hidden]
        self._json(shown if tree else {"id": id_, "sha": disk.head, "siblings": [], "tags": []})
        return True

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
        body = path.read_bytes()
        lfs = _lfs(path).get("lfs", {})
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{lfs.get("sha256") or _digest(path)}"'}
        if lfs and repo.xet:
            headers |= {"X-Xet-Hash": "0" * 64, "X-Xet-Refresh-Route": self.hub.url + _XET}
        headers["Content-Type"] = "application/octet-stream"
        if first := int(self.headers.get("Range", "bytes=0-")[len("bytes=") : -1]):
            headers["Content-Range"] = f"bytes {first}-{len(body) - 1}/{len(body)}"
        self._send(body[first:], 206 if first else 200, headers)

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
        if self.command == "HEAD":
            return
        with suppress(OSError):  # whoever asked has gone away
            if self.broken:
                self.wfile.write(body[: len(body) // 2])
                body = self._rest(body[len(body) // 2 :])
            self.wfile.write(body)

    def _rest(self, body: bytes) -> bytes:
        """What comes after the first half of a body, and when."""
        broken, self.broken = self.broken, ""
        if broken == "hold":
            self.hub.go.wait()
            return body
        if broken == "stall":
            self.hub.ended.wait()
        self.close_connection = True
        return b""


def _digest(path: Path, algorithm: str = "sha1") -> str:
    return _hashed(path, algorithm, path.stat().st_mtime_ns)


@functools.cache
def _hashed(path: Path, algorithm: str, mtime: int) -> str:
    """A digest, made once: a busy machine would answer too late."""
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


def _lfs(path: Path) -> dict[str, Any]:
    """What the Hub says of a large file."""
    if path.suffix not in (".safetensors", ".bin"):
        return {}
    size = path.stat().st_size
    return {"lfs": {"sha256": _digest(path, "sha256"), "size": size, "pointerSize": 134}}


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

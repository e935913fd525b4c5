"""How the stand-in for the Hub is written to: creation, preupload, LFS and commits.

The requests and answers are those of huggingface_hub's client. A commit applies whole or not
at all, and an LFS object counts only when its bytes have its digest.
"""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CREATE, VALIDATE, VERIFY = "/api/repos/create", "/api/validate-yaml", "/lfs/verify"
_ID = r"([^/]+/[^/]+?)"
_PREUPLOAD = re.compile(rf"/api/models/{_ID}/preupload/([^/]+)")
_COMMIT = re.compile(rf"/api/models/{_ID}/commit/([^/]+)")
_BRANCH = re.compile(rf"/api/models/{_ID}/branch/(.+)")
_BATCH = re.compile(rf"/{_ID}\.git/info/lfs/objects/batch")
_OBJECT = re.compile(r"/lfs/([0-9a-f]{64})")
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass
class Disk:
    """What was written: LFS objects by digest, commits, branches, which files are LFS's."""

    root: Path
    objects: dict[str, bytes] = field(default_factory=dict)
    commits: list[tuple[str, list[str]]] = field(default_factory=list)
    branches: set[str] = field(default_factory=set)
    private: dict[str, bool] = field(default_factory=dict)

    def folder(self, id_: str) -> Path:
        return self.root / id_

    @property
    def head(self) -> str:
        return hashlib.sha1(str(len(self.commits)).encode()).hexdigest()


class Wrong(Exception):
    """A request that is refused: the status and the Hub's words."""

    def __init__(self, status: int, message: str, code: str = "", **more: Any) -> None:
        self.status, self.message, self.code, self.more = status, message, code, more


def may_write(user: dict[str, Any] | None, id_: str) -> None:
    """Raises Wrong as the Hub refuses."""
    if user is None:
        raise Wrong(401, "Invalid username or password.")
    orgs = {org["name"]: org["roleInOrg"] for org in user.get("orgs", ())}
    owner = id_.partition("/")[0]
    reads = user["auth"]["accessToken"]["role"] == "read"
    if reads or (owner != user["name"] and orgs.get(owner) not in ("write", "admin")):
        raise Wrong(403, f"You don't have the rights to write in {owner}")


def answer(disk: Disk, url: str, user: dict[str, Any] | None, path: str, body: bytes) -> Any:
    """What a POST is answered with. Raises Wrong."""
    if path == CREATE:
        return _create(disk, url, user, json.loads(body))
    if path == VALIDATE:
        return _validate(json.loads(body)["content"])
    if path == VERIFY:
        return _verify(disk, json.loads(body))
    routes: list[tuple[re.Pattern[str], Callable[[Disk, str, bytes], Any]]] = [
        (_PREUPLOAD, _preupload),
        (_COMMIT, _commit),
        (_BATCH, lambda disk, id_, body: _batch(disk, url, json.loads(body))),
        (_BRANCH, lambda disk, id_, body: disk.branches.add(_BRANCH.fullmatch(path)[2])),  # type: ignore[index]
    ]
    for pattern, route in routes:
        if match := pattern.fullmatch(path):
            may_write(user, match[1])
            if not disk.folder(match[1]).is_dir():
                raise Wrong(404, "Repository not found", "RepoNotFound")
            return route(disk, match[1], body)
    raise Wrong(404, "Sorry, we can't find the page you are looking for.")


def _create(disk: Disk, url: str, user: dict[str, Any] | None, asked: dict[str, Any]) -> Any:
    owner = asked.get("organization") or (user or {}).get("name", "nobody")
    id_ = f"{owner}/{asked['name']}"
    may_write(user, id_)
    if disk.folder(id_).is_dir():
        raise Wrong(409, "You already created this model repo", url=f"{url}/{id_}")
    disk.folder(id_).mkdir(parents=True)
    disk.private[id_] = asked.get("visibility") == "private"
    return {"url": f"{url}/{id_}", "name": id_}


def _validate(content: str) -> Any:
    """The Hub's own rules for the front matter, as far as a card of ours comes near them."""
    told = yaml.safe_load(content.split("---\n")[1])
    names = [*told.get("datasets", []), *([told["base_model"]] if "base_model" in told else [])]
    wrong = [n for n in names if not _NAME.fullmatch(n)]
    if wrong or not isinstance(told.get("license"), str):
        raise Wrong(400, "Invalid metadata", errors=[{"message": f"{wrong} is no name"}])
    return {"errors": [], "warnings": []}


def _preupload(disk: Disk, id_: str, body: bytes) -> Any:
    def mode(file: dict[str, Any]) -> dict[str, Any]:
        held = disk.folder(id_) / file["path"]
        large = file["path"].endswith(".safetensors") or file["size"] > 10 << 20
        oid = git(held.read_bytes()) if held.is_file() and not large else None
        kind = "lfs" if large else "regular"
        return {"path": file["path"], "uploadMode": kind, "shouldIgnore": False, "oid": oid}

    return {"files": [mode(file) for file in json.loads(body)["files"]]}


def _batch(disk: Disk, url: str, asked: dict[str, Any]) -> Any:
    def upload(told: dict[str, Any]) -> dict[str, Any]:
        if told["oid"] in disk.objects:
            return told
        actions = {"upload": {"href": f"{url}/lfs/{told['oid']}"}, "verify": {"href": url + VERIFY}}
        return {**told, "actions": actions}

    return {"transfer": "basic", "objects": [upload(told) for told in asked["objects"]]}


def put(disk: Disk, path: str, body: bytes) -> None:
    """Takes an LFS object."""
    match = _OBJECT.fullmatch(path)
    if match is None or hashlib.sha256(body).hexdigest() != match[1]:
        raise Wrong(400, "The content does not have this digest")
    disk.objects[match[1]] = body


def _verify(disk: Disk, told: dict[str, Any]) -> Any:
    if len(disk.objects.get(told["oid"], b"")) != told["size"]:
        raise Wrong(404, "No such object")
    return {}


def _commit(disk: Disk, id_: str, body: bytes) -> Any:
    lines = [json.loads(line) for line in body.splitlines()]
    made: dict[str, bytes | None] = {}
    for value, key in ((line["value"], line["key"]) for line in lines):
        if key == "file":
            made[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            if value["oid"] not in disk.objects:
                raise Wrong(400, "an LFS object is missing")
            made[value["path"]] = disk.objects[value["oid"]]
        elif key == "deletedFile":
            made[value["path"]] = None
    for name, content in made.items():
        target = disk.folder(id_) / name
        if content is None:
            target.unlink()
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    disk.commits.append((id_, sorted(made)))
    return {"commitUrl": f"/{id_}/commit/{disk.head}", "commitOid": disk.head}


def git(content: bytes) -> str:
    """Git's name of a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entries(folder: Path) -> list[dict[str, Any]]:
    """A repository's tree with everything in folders."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content, name = path.read_bytes(), str(path.relative_to(folder))
        told = {"type": "file", "path": name, "size": len(content), "oid": git(content)}
        if name.endswith(".safetensors"):
            digest = hashlib.sha256(content).hexdigest()
            told["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        found.append(told)
    return found

"""A model of the Hub and this machine's cache: what is lost there, whether it fits, how it comes.

What has come of a file stays and is gone on from. A file is whole when it has the size that
the Hub tells, and its digest too where it came in several goes.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.artifacts import modelfiles, selection
from envtune.transfer.hub import Hub
from envtune.transfer.repositories import Repository


class Torn(Exception):
    """A file is not there as the Hub says that it is."""


class Full(Exception):
    """What is to come does not fit."""


@dataclass(frozen=True)
class Plan:
    """The files of a repository at a commit: their names, sizes in bytes, and the SHA-256 of
    large ones. `blobs` is the folder of the cache in which they grow."""

    repository: Repository
    commit: str
    names: Sequence[str]
    sizes: Mapping[str, int]
    digests: Mapping[str, str]
    blobs: Path

    def path(self, name: str) -> Path:
        """Where a file is once it is whole."""
        return self.blobs.parent / "snapshots" / self.commit / name

    def lost(self) -> list[str]:
        """The files that the cache does not hold; one of another size is removed."""
        for name in self.names:
            path = self.path(name)
            if path.exists() and path.stat().st_size != self.sizes.get(name, path.stat().st_size):
                _remove(path)
        return [name for name in self.names if not self.path(name).exists()]

    def begun(self) -> dict[str, int]:
        """The large files of which a part is there, and how many bytes of each."""
        parts = {n: self.blobs / f"{digest}.incomplete" for n, digest in self.digests.items()}
        return {name: path.stat().st_size for name, path in parts.items() if path.exists()}

    def to_come(self) -> int:
        """The bytes that are not here yet."""
        begun = self.begun()
        return sum(max(self.sizes.get(n, 0) - begun.get(n, 0), 0) for n in self.lost())


def plan(hub: Hub, repository: Repository, *, code: bool) -> Plan:
    """Asks the Hub what a run needs of a repository; `code`: its own Python is run too."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    api, id_ = _api(hub), repository.id
    info = api.model_info(
        id_,
        revision=repository.revision,
        files_metadata=True,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    )
    listed = {file.rfilename: file for file in info.siblings or ()}
    shards: set[str] = set()
    if modelfiles.WEIGHTS in repository.parts and "index" in (first := selection.entry(listed)):
        index = api.hf_hub_download(id_, first, revision=info.sha)
        shards = set(modelfiles.read_json(Path(index)).get("weight_map", {}).values())
    names = selection.files(listed, repository.parts, shards, code=code)
    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=id_, repo_type="model")
    return Plan(
        repository,
        info.sha,
        names,
        {name: size for name in names if (size := listed[name].size) is not None},
        {name: listed[name].lfs.sha256 for name in names if listed[name].lfs},
        folder / "blobs",
    )


def make_sure_of_room(plans: Sequence[Plan]) -> None:
    """Raises Full where the disk of the cache has not enough for what is to come."""
    cache, needed = plans[0].blobs.parents[1], sum(plan.to_come() for plan in plans)
    cache.mkdir(parents=True, exist_ok=True)
    if needed > (free := shutil.disk_usage(cache).free):
        what = ", ".join(plan.repository.id for plan in plans)
        raise Full(f"{what}: {_gib(needed)} are to come and {cache} has {_gib(free)} free")


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


def bring(hub: Hub, plan: Plan, beat: Callable[[], None]) -> list[str]:
    """Fetches what the cache does not hold: the names of it. Raises Torn.

    `beat` is called while nothing comes in and work goes on all the same.
    """
    from glob import escape

    lost, begun = plan.lost(), plan.begun()
    # Several files at a time; the library's lock for each lets one of several processes fetch it.
    _api(hub).snapshot_download(
        plan.repository.id,
        revision=plan.repository.revision,
        allow_patterns=[escape(name) for name in lost],
    )
    # What Xet began and HTTP went on with may have its length and holes.
    for name in set(begun).intersection(lost):
        if plan.path(name).exists() and _sha256(plan.path(name), beat) != plan.digests[name]:
            _remove(plan.path(name))
    # Where the Hub fails on the way, its library takes what is there for the whole.
    if still := plan.lost():
        raise Torn(f"{', '.join(still)} did not come whole")
    return lost


def _api(hub: Hub) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=hub.url, token=hub.token, library_name="envtune")


def _sha256(path: Path, beat: Callable[[], None]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 24):
            digest.update(block)
            beat()
    return digest.hexdigest()


def _remove(path: Path) -> None:
    """Removes a file of a snapshot and what it leads to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)

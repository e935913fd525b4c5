"""All runs below the outputs: how each stands, what it takes on the disk, what can be freed.

Only the checkpoints of a finished run can be: it never resumes. Its results stay, and so does a
checkpoint that another run starts from, or has as its base.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from envtune.artifacts import best, checkpoints
from envtune.errors import Refused
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs import folders, lease, record, recordfile
from envtune.runs.contents import COMPLETE
from envtune.runs.folders import Run
from envtune.runs.lease import Lease

DONE, AT_WORK = "done", "at work"
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Listed:
    """A run as it is listed. `size` in bytes on the disk, `created` when it was claimed."""

    run: Run
    state: str
    step: int | None
    loss: float | None
    size: int
    created: datetime


def runs(outputs: Path) -> list[Run]:
    """The runs below the outputs, and the newest wherever it lies; the newest first."""
    there = recordfile.below(outputs)
    with suppress(Refused):  # none yet, or one that is gone
        there.add(folders.named(outputs, None).folder)
    made = {folder: folders.read_record(folder) for folder in there}
    ordered = sorted(filter(made.get, made), key=lambda f: _age_key(made[f]), reverse=True)
    return [folders.open_run(folder) for folder in ordered]


def trained(outputs: Path) -> Run | None:
    """The newest run that is trained to its end, or None."""
    return next((run for run in runs(outputs) if is_trained(folders.read_record(run.folder))), None)


def look(run: Run) -> Listed:
    """How a run stands."""
    told, last = folders.read_record(run.folder), record.last_metric(run.folder)
    size = sum(_sizes(run.folder).values())
    return Listed(run, _state(run, told), last.get("step"), last.get("loss"), size, _created(told))


def freeable(run: Run, others: list[Run]) -> list[Path]:
    """The checkpoints of a finished run that nobody goes on from."""
    if not run.finished or lease.holder(run.folder):
        return []
    mine = checkpoints.ours(run.folder / CHECKPOINTS)
    others = [other for other in others if other != run] if mine else []
    needed = [json.dumps(folders.read_record(o.folder).get("resolved")) for o in others]
    return [path for path in mine if not any(_names(text, path) for text in needed)]


def _names(settings: str, path: Path) -> bool:
    """Whether settings name a path or what is below it, also by another way to its folder."""
    ways = {json.dumps(str(one))[1:-1] for one in (path, path.resolve())}
    return any(f"{way}{end}" in settings for way in ways for end in ('"', "/"))


def freed(paths: list[Path]) -> int:
    """The bytes that the end of these folders frees: of files with no name elsewhere."""
    names: dict[tuple[int, int], list[int]] = {}
    for path in paths:
        for file in _files(path):
            told = file.lstat()
            names.setdefault((told.st_dev, told.st_ino), []).append(told.st_nlink)
    sizes = {key: size for path in paths for key, size in _sizes(path).items()}
    return sum(sizes[key] for key, links in names.items() if len(links) == links[0])


def prune(run: Run, paths: list[Path]) -> None:
    """Removes checkpoints of a finished run. Raises Refused where somebody else holds it."""
    with Lease(run.folder):
        if not (run.folder / COMPLETE).exists():
            return  # a lone stage began and did not end meanwhile
        for path in paths:
            checkpoints.begin(path, 0)  # half of one counts for none, and is still ours
            shutil.rmtree(path)
        best.drop_dangling(run.folder / CHECKPOINTS)


def _state(run: Run, told: dict[str, Any]) -> str:
    if lease.holder(run.folder):
        return AT_WORK
    if run.finished:
        return DONE
    stages = told.get("stages", {})
    failed = [name for name, stage in stages.items() if stage.get("outcome") == "failed"]
    if failed:
        return f"{failed[-1]} failed"
    return "trained" if is_trained(told) else "stopped" if told.get("outcome") else "unfinished"


def is_trained(told: dict[str, Any]) -> bool:
    """Whether the run of a record is trained to its end."""
    return bool(told.get("stages", {}).get("train", {}).get("outcome") == "done")


def _created(told: dict[str, Any]) -> datetime:
    try:
        return datetime.fromisoformat(told["created"]).astimezone(UTC)
    except (LookupError, TypeError, ValueError):
        return _NEVER


def _age_key(told: dict[str, Any]) -> tuple[datetime, int]:
    return _created(told), int(told["number"])


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def _sizes(folder: Path) -> dict[tuple[int, int], int]:
    """The bytes of each file, however many names it has."""
    told = (path.lstat() for path in _files(folder))
    return {(one.st_dev, one.st_ino): one.st_size for one in told}

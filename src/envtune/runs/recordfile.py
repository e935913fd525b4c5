"""run.json and its copy in config/: a disk that damages the one seldom damages both."""

import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import manifests
from envtune.errors import Exit, Problem
from envtune.runs.contents import COPY, RECORD

LOG = logging.getLogger("envtune")
# A record of a neighbour's is no longer than this, bytes.
_LARGEST = 16 << 20
_KEYS = {"name": str, "prefix": str, "number": int, "key": str, "logs": str}


def read(folder: Path) -> dict[str, Any]:
    """What is recorded of a run; nothing where there is no record, or none that is ours."""
    found = (read_file(folder / name) for name in (RECORD, COPY))
    return next(filter(None, found), {})


def read_file(path: Path) -> dict[str, Any]:
    """What one of the two holds; nothing where it is damaged, not ours, or not there."""
    try:
        record = files.read_json(path, _LARGEST)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and is_ours(record) else {}


def is_ours(record: dict[str, Any]) -> bool:
    """Whether it tells of a run, by the names and the types of what it says."""
    typed = all(isinstance(record.get(name), kind) for name, kind in _KEYS.items())
    stages = record.get("stages", {})
    return typed and isinstance(stages, dict) and all(isinstance(s, dict) for s in stages.values())


def first(name: str, prefix: str, number: int, key: str, logs: Path) -> dict[str, Any]:
    """What it holds from the moment that a run has its folder."""
    created = datetime.now().astimezone().isoformat(timespec="seconds")
    return {
        "name": name,
        "prefix": prefix,
        "number": number,
        "key": key,
        "logs": str(logs),
        "created": created,
    }


def write(folder: Path, record: dict[str, Any]) -> None:
    """Writes both."""
    files.write_json(folder / RECORD, record)
    (folder / COPY).parent.mkdir(exist_ok=True)
    files.write_json(folder / COPY, record)


def make_anew(folder: Path, record: dict[str, Any]) -> None:
    """Writes both where both are lost; what is there is kept."""
    for name in (RECORD, COPY):
        if os.path.lexists(folder / name):
            files.set_aside(folder / name)
    LOG.warning("%s is lost with its copy; made again: its checkpoints are of this configuration",
                folder / RECORD)  # fmt: skip
    write(folder, record)


def below(outputs: Path) -> set[Path]:
    """The folders that have one of the two, whatever is in it."""
    told = {path.parent for path in outputs.glob(f"*/{RECORD}")}
    return told | {path.parents[1] for path in outputs.glob(f"*/{COPY}")}


def unreadable(folder: Path) -> Problem | None:
    """A problem of the volume or of a permission, which is no damage."""
    try:
        files.head(folder / RECORD, 1)
    except OSError as error:
        if not manifests.tells_of_damage(error):
            what = f"{folder / RECORD}: {error.strerror}; nothing is changed: make it readable"
            return Problem("", f"{what}, and the next start goes on", Exit.DISK)
    return None

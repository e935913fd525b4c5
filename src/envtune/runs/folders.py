"""Run folders: finding the one of a key, claiming the next name, holding it.

Two starts at once never train the same thing twice: finding and claiming happens under
a lock on the outputs folder, and training under the run's own lease (`lease`).
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import checkpoints
from envtune.errors import Problem, Refused
from envtune.resolve.config import RunConfig
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs import contents, naming, recordfile
from envtune.runs.contents import COMPLETE, RECORD
from envtune.runs.lease import lock
from envtune.runs.naming import RunName

LOG = logging.getLogger("envtune")
LATEST = "latest.txt"
# Names in the way that a line shows.
_SHOWN = 8
# No pointer to a run is longer, bytes.
_LONGEST = 4096
read_record = recordfile.read


@dataclass(frozen=True)
class Run:
    """A run's folder, the folder of its logs, its name and its key."""

    name: str
    folder: Path
    logs: Path
    key: str

    @property
    def finished(self) -> bool:
        return (self.folder / COMPLETE).exists()

    def log(self, stage: str, node: int = 0) -> Path:
        """The log of a stage on a node; its folder is there afterwards."""
        folder = self.logs / stage
        folder.mkdir(parents=True, exist_ok=True)
        return folder / (f"node{node}.log" if node else "run.log")


def open_run(folder: Path, logs: Path | None = None) -> Run:
    """The run that a folder holds, with its logs below `logs`, else where they were.

    Raises Refused when it holds none.
    """
    record = read_record(folder)
    if not record:
        raise Refused([Problem("", f"{folder} holds no run ({RECORD} is missing or damaged)")])
    name = record["name"]
    return Run(name, folder, logs / name if logs else Path(record["logs"]), record["key"])


def named(outputs: Path, name: str | None) -> Run:
    """The run of a name below the outputs or of a folder, else the newest.

    Raises Refused where there is none; nothing is made.
    """
    if name is None:
        try:
            name = files.read_text(outputs / LATEST, _LONGEST).strip()
        except (OSError, ValueError):
            text = f"there is no run below {outputs}; name one, or set SFT_OUTPUTS_DIR"
            raise Refused([Problem("", text)]) from None
    below = outputs / name
    return open_run(below if os.path.isdir(below) else Path(os.path.abspath(name)))


def find(config: RunConfig, key: str, outputs: Path) -> Path | None:
    """The newest folder with this key, or None."""
    if config.output_dir is not None:
        return Path(config.output_dir) if read_record(Path(config.output_dir)) else None
    records = {folder: read_record(folder) for folder in recordfile.below(outputs)}
    mine = [f for f, r in records.items() if r.get("key") == key and _named(config, r)]
    return max(mine, key=lambda folder: records[folder]["number"], default=None)


def _recovered(config: RunConfig, key: str, outputs: Path, logs: Path) -> Path | None:
    """A folder whose record is lost with its copy: its checkpoints say whose they are. Raises
    Refused where a record cannot be read at the moment, and may be that of this run."""
    several = [Path(config.output_dir)] if config.output_dir else sorted(outputs.glob("*/"))
    for folder in several:
        if read_record(folder):
            continue
        if (trouble := recordfile.unreadable(folder)) and _may_be(config, folder):
            raise Refused([trouble])
        if key in checkpoints.keys(folder / CHECKPOINTS):
            prefix, number = naming.counted(folder.name)
            record = recordfile.first(folder.name, prefix, number, key, logs / folder.name)
            if _named(config, record):
                recordfile.make_anew(folder, record)
                return folder
    return None


def _may_be(config: RunConfig, folder: Path) -> bool:
    """Whether a folder's name is one that a run of this configuration would have."""
    mine = {"-".join(naming.parts(config)), config.setting("FORCE_RUN_NAME")}
    return bool(config.output_dir or {folder.name, naming.counted(folder.name)[0]} & mine)


def _named(config: RunConfig, record: dict[str, Any]) -> bool:
    """Whether a run has the name that the user insists on, if any."""
    if config.setting("USE_LEGACY_NAMING"):
        wanted = config.setting("LEGACY_RUN_NAME") or naming.legacy_name(config)
        return bool(record["name"] == wanted)
    name, index = config.setting("FORCE_RUN_NAME"), config.setting("FORCE_RUN_INDEX")
    if name is not None:
        return bool(record["name"] == name)
    return index is None or record["number"] == index


def preview(config: RunConfig, key: str, outputs: Path, logs: Path) -> tuple[RunName, Path]:
    """The name and folder that the next start would use. Creates nothing."""
    existing = find(config, key, outputs)
    reuse = existing is not None and _reusable(config, key, existing)
    name = _next(config, outputs, logs) if not reuse else _recorded(config, existing)
    folder = Path(config.output_dir) if config.output_dir else outputs / name.name
    return name, folder


def claim(config: RunConfig, key: str, outputs: Path, logs: Path) -> Run:
    """The unfinished or finished run of this key, or a new one under the next name."""
    outputs.mkdir(parents=True, exist_ok=True)
    with _locked(outputs / ".lock"):
        existing = find(config, key, outputs) or _recovered(config, key, outputs, logs)
        if existing is not None and _reusable(config, key, existing):
            run = open_run(existing, logs)
            for base, target in ((outputs, existing), (logs, run.logs)):
                _mend_pointer(base, target)
            return run
        while True:
            name = _next(config, outputs, logs)
            folder = Path(config.output_dir) if config.output_dir else outputs / name.name
            if _made(folder, _insisted(config, name.name)):
                break
        run = Run(name.name, folder, logs / name.name, key)
        run.logs.mkdir(parents=True, exist_ok=True)  # takes the name there too
        recordfile.write(folder, recordfile.first(run.name, name.prefix, name.index, key, run.logs))
        for base, target in ((outputs, folder), (logs, run.logs)):
            base.mkdir(parents=True, exist_ok=True)
            _point(base, target)
        return run


def _point(base: Path, target: Path) -> None:
    path = base / LATEST
    if os.path.lexists(path) and not (path.is_file() and _points(base, path)):
        LOG.warning("%s names no run; it is kept as %s", path, files.set_aside(path))
    files.write_text(path, f"{_pointer(base, target)}\n")


def _mend_pointer(base: Path, target: Path) -> None:
    """latest.txt names a run, or the one that goes on where a disk has damaged it."""
    path = base / LATEST
    told = path.is_file() and path.stat().st_size and _points(base, path)
    if base.is_dir() and not told:
        _point(base, target)


def _reusable(config: RunConfig, key: str, folder: Path) -> bool:
    """Whether a start goes on with what is in `folder`. Raises Refused where it cannot."""
    record = read_record(folder)
    finished = (folder / COMPLETE).exists()
    rerun = config.setting("SFT_RERUN") and finished
    if record.get("key") == key and not rerun:
        return True
    if config.output_dir is not None:
        why = "a finished run" if rerun else "a run of another configuration"
        raise Refused([Problem("AXOLOTL_OUTPUT_DIR", f"{folder} holds {why}; name another folder")])
    return False


def _next(config: RunConfig, outputs: Path, logs: Path) -> RunName:
    bases = [base for base in (outputs, logs) if base.is_dir()]
    existing = {entry.name for base in bases for entry in base.iterdir() if entry.is_dir()}
    name = naming.next_name(config, existing, datetime.now())
    if not config.output_dir and read_record(outputs / name.name):
        setting = "LEGACY_RUN_NAME" if config.setting("USE_LEGACY_NAMING") else "FORCE_RUN_NAME"
        raise Refused(
            [
                Problem(
                    setting, f"{name.name} exists with another configuration; choose another name"
                )
            ]
        )
    return name


def _recorded(config: RunConfig, folder: Path | None) -> RunName:
    assert folder is not None
    record = read_record(folder)
    return RunName(record["name"], record["prefix"], record["number"], *naming.parts(config))


def _insisted(config: RunConfig, name: str) -> str:
    """The setting that chose the folder whole, so that no other will do; empty for none."""
    if config.output_dir:
        return "AXOLOTL_OUTPUT_DIR"
    if config.setting("USE_LEGACY_NAMING"):
        return "LEGACY_RUN_NAME"
    return "FORCE_RUN_NAME" if name == config.setting("FORCE_RUN_NAME") else ""


def _made(folder: Path, insisted: str) -> bool:
    """Makes the folder; False when another start was faster. A chosen one may be there."""
    try:
        folder.mkdir(parents=True, exist_ok=bool(insisted))
    except FileExistsError:
        if not folder.is_dir():
            raise Refused([Problem("", f"{folder} is a file; the run needs its name")]) from None
        return False
    if insisted and (taken := foreign(insisted, folder)):
        raise Refused([taken])
    return True


def foreign(name: str, folder: Path) -> Problem | None:
    """A problem of the setting `name` where a folder is no run's and holds what a run writes."""
    taken = [] if read_record(folder) else contents.in_the_way(folder)
    if not taken:
        return None
    shown = ", ".join(taken[:_SHOWN]) + (", ..." if taken[_SHOWN:] else "")
    what = f"{folder} is no run's folder, and a run would write to {shown} in it"
    return Problem(name, f"{what}; name an empty folder, or move them away")


def foreign_pointer(name: str, base: Path) -> Problem | None:
    """A problem of the setting `name` where latest.txt is no pointer to a run but somebody's."""
    path = base / LATEST
    if not os.path.lexists(path) or (path.is_file() and _points(base, path)):
        return None
    if any(base.glob(f"*/{RECORD}")) or any(map(naming.is_name, os.listdir(base))):
        return None  # it was, before a disk damaged it
    what = f"{path} is not envtune's, which keeps the name of the newest run there"
    return Problem(name, f"{what}; name another folder, or move it away")


def _points(base: Path, path: Path) -> bool:
    """Whether a file holds what a run's start writes there: one line that names a run."""
    try:
        if path.stat().st_size > _LONGEST:
            return False
        text = path.read_text()
        name = text.removesuffix("\n")
        known = name.startswith("/") or naming.is_name(name) or bool(read_record(base / name))
    except (OSError, ValueError):
        return False
    return "\n" not in name and (known or not name)


def _pointer(base: Path, target: Path) -> str:
    """Relative where it can be, so that it holds in a container and on its host."""
    return target.name if target.parent == base else str(target)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as stream:
        lock(stream)
        yield

"""What a disk has done to a run's folder, mended before a start reads it.

run.json has a copy in config/, resolved.json is in run.json, the losses are in the checkpoints'
own logs: each is made again from the other. What a start makes anew anyway is put aside. Nothing
is deleted, and each is a line. What cannot be read at the moment is no damage, and ends the start.
"""

import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from envtune import channel, files
from envtune.artifacts import checkpoints, manifests
from envtune.errors import Exit, Problem, Refused
from envtune.events import EVENTS
from envtune.render import yaml_files
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs import contents, record, recordfile
from envtune.runs.folders import Run
from envtune.supervise import budget, nodes, templates
from envtune.supervise.stage import LOG

_AXOLOTL, _ACCELERATE = "config/axolotl.yaml", "config/accelerate.yaml"
_FOLDERS = (contents.CONFIG, contents.DATA, contents.EVAL, CHECKPOINTS)
_LINES = (channel.METRICS, channel.EVALUATIONS)
# What holds an object, and what of it has to be there.
_OBJECTS: dict[str, Callable[[Any], object]] = {
    channel.OUTCOME: channel.outcome_of,
    contents.BUDGET: budget.spent_of,
    contents.LAUNCH: nodes.launch_of,
    contents.SERVER: dict,
    contents.TRACKED: dict,
    contents.PREPARED: lambda told: Path(told["folder"]),
    contents.SAMPLE: dict,
}
_FILES = (
    contents.RECORD, contents.COPY, record.RESOLVED, contents.REPORT, contents.LEASE, EVENTS,
    contents.CARD, contents.COMPLETE, channel.STOP, _AXOLOTL, _ACCELERATE, *_LINES, *_OBJECTS,
)  # fmt: skip
_WRONG = (ValueError, TypeError, LookupError, AttributeError)


def mend(run: Run) -> None:
    """Mends what is damaged of a run whose lease is held. Raises Refused where something cannot
    be read, or where nothing says any more what the run was made with."""
    try:
        for name in (*_FOLDERS, *_FILES):
            _clear_the_way(run.folder / name, os.path.isdir if name in _FOLDERS else _is_file)
        _mend_record(run.folder)
        _mend_resolved(run)
        for name, read in _OBJECTS.items():
            _drop_unless(run.folder / name, read, "it is made again")
        _reopen_without_report(run.folder)
        for name in _LINES:
            _mend_lines(run.folder, name)
    except OSError as error:
        what = f"{error.filename or run.folder}: {error.strerror}; nothing is changed: make it "
        text = f"{what}readable and the next start goes on"
        raise Refused([Problem("", text, Exit.DISK)]) from error


def _is_file(path: Path) -> bool:
    """Raises OSError where that cannot be told."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        if not manifests.tells_of_damage(error):
            raise
        return False


def _clear_the_way(path: Path, is_right: Callable[[Path], bool]) -> None:
    """Puts aside what has the name of a file or a folder and is none: a link to nothing, say."""
    if os.path.lexists(path) and not is_right(path):
        LOG.warning("%s is not what it was; it is kept as %s", path, files.set_aside(path))


def _parsed(path: Path) -> Any:
    """Raises ValueError for what is damaged, and OSError for what cannot be read."""
    try:
        return files.read_json(path)
    except OSError as error:
        if not manifests.tells_of_damage(error):
            raise
        raise ValueError(error.strerror) from error


def _drop_unless(path: Path, read: Callable[[Any], object], then: str) -> bool:
    """Whether a file was damaged; it is put aside then."""
    if not path.exists():
        return False
    try:
        told = _parsed(path)
        if not isinstance(told, dict):
            raise ValueError("it holds no object")  # noqa: TRY004
        read(told)
    except _WRONG as error:
        reason = str(error) or type(error).__name__
        kept = files.set_aside(path)
        LOG.warning("%s is damaged (%s) and kept as %s; %s", path, reason, kept, then)
        return True
    return False


def _mend_record(folder: Path) -> None:
    """run.json and its copy, the one by the other."""
    told = recordfile.read(folder)
    for name in (contents.RECORD, contents.COPY):
        path = folder / name
        _drop_unless(path, _refuse_others, "it is written again by its copy")
        if told and not path.exists():
            path.parent.mkdir(exist_ok=True)
            files.write_json(path, told)


def _refuse_others(told: dict[str, Any]) -> None:
    if not recordfile.is_ours(told):
        raise ValueError("it does not tell of a run")


def _mend_resolved(run: Run) -> None:
    """config/ by run.json: resolved.json, and the two YAMLs by that."""
    told = record.resolved_in_record(run.folder)
    path = run.folder / record.RESOLVED
    if path.exists() and not record.resolved_file(run.folder):
        _parsed_or_none(path)
        LOG.warning("%s is damaged and kept as %s", path, files.set_aside(path))
    if told and not path.exists():
        LOG.warning("%s is written again by %s", path, contents.RECORD)
        files.write_json(path, told)
    if told or path.exists():
        _mend_yaml(run, _AXOLOTL, templates.render_axolotl)
        _mend_yaml(run, _ACCELERATE, yaml_files.render_accelerate)


def _parsed_or_none(path: Path) -> Any:
    try:
        return _parsed(path)
    except ValueError:
        return None


def _mend_yaml(run: Run, name: str, render: Callable[[Any], str]) -> None:
    """One that a person has changed is read as it is."""
    path = run.folder / name
    if path.exists():
        try:
            if isinstance(yaml.safe_load(files.read_text(path)), dict):
                return
        except (yaml.YAMLError, ValueError, RecursionError):
            LOG.debug("%s is no YAML", path)
        LOG.warning("%s is damaged and kept as %s", path, files.set_aside(path))
    LOG.warning("%s is written again by %s", path, record.RESOLVED)
    files.write_text(path, render(record.load_resolved(run)))


def _reopen_without_report(folder: Path) -> None:
    """A finished run whose figures are damaged ends once more, which makes them again."""
    path, done = folder / contents.REPORT, folder / contents.COMPLETE
    lost = _drop_unless(path, lambda told: float(told["steps"]), "it is made again")
    if done.exists() and (lost or not path.exists()):
        done.unlink()


def _mend_lines(folder: Path, name: str) -> None:
    """Drops what is no line, and takes what is missing from the log of the newest checkpoint."""
    path = folder / name
    lines = files.read_bytes(path).splitlines() if path.exists() else []
    read = list(map(channel.read_line, lines))
    kept = {told["step"]: told for told in filter(None, read)}
    bad = [number for number, told in enumerate(read, 1) if not told]
    if bad and not (bad == [len(lines)] and not files.read_bytes(path).endswith(b"\n")):
        aside = files.set_aside(path)
        LOG.warning("%s: line %d is none; all of it is kept as %s", path, bad[0], aside)
    made = dict(_logged(folder, "eval_loss" if name == channel.EVALUATIONS else "loss", kept))
    if made or (bad and not path.exists()):
        both = sorted({**made, **kept}.items())
        path.parent.mkdir(exist_ok=True)
        files.write_text(path, "".join(json.dumps(told) + "\n" for _, told in both))
        LOG.warning("%s: %d lines are taken from the checkpoints", path, len(made))


def _logged(
    folder: Path, metric: str, kept: dict[int, dict[str, Any]]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What the newest checkpoint says of steps of which no line is left, by step. When that was
    it does not say: as early as the line before."""
    newest = checkpoints.newest(folder / CHECKPOINTS)
    history = checkpoints.state(newest).get("log_history") if newest else None
    told_by = record.resolved_file(folder) or record.resolved_in_record(folder)
    brought, _ = checkpoints.brought(told_by.get("resume_from"))
    seconds = 0.0
    for entry in history if isinstance(history, list) else ():
        if metric not in entry or 0 < brought >= entry["step"]:
            continue
        told = kept.get(entry["step"])
        seconds = told["seconds"] if told else seconds
        if told is None:
            yield entry["step"], channel.line(entry, seconds)

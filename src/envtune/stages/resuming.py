"""Which checkpoint a training goes on from.

The newest whose every byte is as it was written. What is not is put aside, never removed; what
cannot be read at the moment is neither, and ends the start: going on from an older one would
train again what the next start may find.
"""

import re
from pathlib import Path

from envtune.artifacts import checkpoints, manifests
from envtune.channel import Outcome
from envtune.errors import Exit
from envtune.failures.table import gist
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs import folders, record
from envtune.supervise.stage import LOG, Context, Ended

_NOT_LOADED = re.compile(r"envtune\S*\.NotLoaded: ")
# No reason is longer in a line of the log.
_REASON = 300


def look(context: Context) -> Path | None:
    """The newest whole checkpoint, once what is half or damaged is out of the way. Raises Ended."""
    folder = context.run.folder / CHECKPOINTS
    try:
        for half in checkpoints.drop_uncommitted(folder):
            LOG.warning("train: %s was half written and is removed", half.name)
        return _newest(context, folder)
    except OSError as error:
        raise Ended(Exit.DISK, _unreadable(error)) from error


def check_given(context: Context) -> None:
    """Compares the checkpoint that the user names, where envtune has made it. Raises Ended."""
    given = Path(context.config.resume_from or "")
    try:
        if not context.config.resume_from or manifests.is_missing(given):
            return
        step = checkpoints.state(given).get("global_step", -1)
        reason = manifests.problem(given, step, "")
    except OSError as error:
        raise Ended(Exit.DISK, _unreadable(error)) from error
    if reason is not None:
        told = f"AXOLOTL_RESUME_FROM_CHECKPOINT: {given} is damaged: {context.clean(reason)}"
        raise Ended(Exit.CONFIG, f"{told}; name another checkpoint")


def _newest(context: Context, folder: Path) -> Path | None:
    found = None
    while found is None and (named := checkpoints.named(folder)):
        newest = named[-1]
        reason = manifests.problem(newest, checkpoints.step_of(newest), context.run.key)
        if reason is None:
            found = newest
        else:
            _put_aside(context, newest, f"is damaged: {reason}")
    if found and not manifests.has_digests(found):
        LOG.warning(
            "train: %s was made by an earlier version, without digests: only the sizes of its "
            "files are known to be right", found.name,
        )  # fmt: skip
    if found is None and folders.read_record(context.run.folder).get("damaged"):
        LOG.warning("train: no whole checkpoint is left; the training begins anew")
    return found


def _put_aside(context: Context, path: Path, reason: str) -> None:
    """Moves a checkpoint out of the way, and says so in the log and in run.json."""
    kept = checkpoints.put_aside(path)
    reason = context.clean(reason)
    LOG.warning("train: %s %s; it is put aside as %s", path.name, reason, kept)
    told = {
        "checkpoint": path.name,
        "reason": reason,
        "kept": str(kept.relative_to(context.run.folder)),
    }
    before = folders.read_record(context.run.folder).get("damaged", [])
    record.update(context.run, damaged=[*before, told])


def _unreadable(error: OSError) -> str:
    return (
        f"{error.filename or CHECKPOINTS}: {error.strerror}; nothing is changed: make it readable "
        "and the next start resumes, or move its checkpoint away and it goes on from an older one"
    )


def not_loaded(outcome: Outcome) -> str:
    """What the engine could not load of a checkpoint; empty where it failed in another way."""
    if outcome.state != "failed" or not _NOT_LOADED.match(outcome.error):
        return ""
    return gist(_NOT_LOADED.sub("", outcome.error))[:_REASON]


def go_back(context: Context, path: Path, reason: str) -> Path | None:
    """The checkpoint before one that is as it was written and does not load.

    Raises Ended where there is none: then it is not the disk that fails, and what was trained
    is not given up without a word from the user.
    """
    if len(checkpoints.named(path.parent)) < 2:
        raise Ended(
            Exit.ARTIFACT,
            f"{path.name} cannot be loaded, and there is none before it: {reason}; start with the "
            "versions in run.json, or move it away and the training begins anew",
        )
    _put_aside(context, path, f"cannot be loaded: {reason}")
    if context.config.parallel.nodes > 1:  # the others have ended with this training
        raise Ended(Exit.DISK, f"{path.name} cannot be loaded; the next start goes on before it")
    return look(context)

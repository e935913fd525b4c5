"""Which checkpoint is the best, and `checkpoints/best`, the link that says so.

A checkpoint is rated by what was measured at its own step: weights that nobody has measured are
not the best of anything. The link is relative, so that it holds wherever the run is moved to.
"""

import errno
import logging
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import checkpoints

LOG = logging.getLogger("envtune")
LINK = "best"
# What a volume says that has no links.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class Rating:
    """What decides: the name of a metric in an evaluation's log, and whether more is better."""

    metric: str = "eval_loss"
    more: bool = False


def rating(metric: str | None, more: bool | None) -> Rating:
    """By metric_for_best_model and greater_is_better, as the Trainer reads the two; without them
    by the validation loss."""
    name = metric or "eval_loss"
    name = name if name.startswith("eval_") else f"eval_{name}"
    return Rating(name, not name.endswith("loss") if more is None else more)


def find(folder: Path, history: Iterable[Any], by: Rating) -> Path | None:
    """The committed checkpoint below `folder` that was measured best, of equals the earliest.

    `history`: the Trainer's log, each evaluation a mapping with its step. None where none of them
    was measured.
    """
    told = {line["step"]: line[by.metric] for line in history if _tells(line, by.metric)}
    rated = [path for path in checkpoints.ours(folder) if checkpoints.step_of(path) in told]
    sign = -1 if by.more else 1
    whole = filter(checkpoints.committed, rated)
    return min(whole, key=lambda path: sign * told[checkpoints.step_of(path)], default=None)


def _tells(line: Any, metric: str) -> bool:
    value = line.get(metric) if isinstance(line, dict) else None
    return isinstance(value, int | float) and math.isfinite(value) and "step" in line


def of_run(folder: Path, by: Rating) -> Path | None:
    """The same by the log that the newest checkpoint holds."""
    newest = checkpoints.newest(folder)
    history = checkpoints.state(newest).get("log_history") if newest else None
    return find(folder, history if isinstance(history, list) else (), by)


def point(folder: Path, found: Path | None) -> None:
    """Has `best` below `folder` say `found`, in one move; nothing where there is none."""
    link = folder / LINK
    if os.path.lexists(link) and not link.is_symlink():
        kept = files.set_aside(link, folder.parent)
        LOG.warning("%s was not made by this run; it is kept as %s", link, kept)
    if found is None:
        link.unlink(missing_ok=True)
    elif not link.is_symlink() or os.readlink(link) != found.name:
        _replace(link, found.name)


def drop_dangling(folder: Path) -> None:
    """Removes the link where the checkpoint that it names is gone."""
    if (link := folder / LINK).is_symlink() and not link.exists():
        link.unlink()


def _replace(link: Path, name: str) -> None:
    aside = link.with_name(f".{LINK}.new")
    aside.unlink(missing_ok=True)
    try:
        aside.symlink_to(name)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        LOG.debug("%s: the volume has no links", link)
        return
    os.replace(aside, link)
    checkpoints.sync_folder(link.parent)

"""Which checkpoint a training goes on from.

The newest whose every byte is as it was written. What is not is put aside, never removed; what
cannot be read at the moment is neither, and ends the start: going on from an older one would
train again what the next start may find.
"""

import os
import re
from pathlib import Path

from envtune import channel, files
from envtune.artifacts import adapterfiles, best, checkpoints, compatibility, manifests, weights
from envtune.channel import EVALUATIONS, Outcome
from envtune.errors import Exit
from envtune.failures.table import gist
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs import folders, record
from envtune.settings.own.training import OFF, RESUME_FROM
from envtune.supervise.stage import LOG, Context, Ended
from envtune.transfer import hubcache

_NOT_LOADED = re.compile(r"envtune\S*\.NotLoaded: ")
# No reason is longer in a line of the log.
_REASON = 300


def look(context: Context) -> Path | None:
    """The newest whole checkpoint, once what is half or damaged is out of the way. Raises Ended."""
    folder = context.run.folder / CHECKPOINTS
    try:
        for half in checkpoints.drop_uncommitted(folder):
            LOG.warning("train: %s was half written and is removed", half.name)
        newest = _newest(context, folder)
        point_at_best(context)
        return newest
    except OSError as error:
        raise Ended(Exit.DISK, _unreadable(error)) from error


def point_at_best(context: Context) -> None:
    """Has checkpoints/best say which is: a kill, or what was put aside, may have come between."""
    plain = context.config.plain()
    by = best.rating(plain.get("metric_for_best_model"), plain.get("greater_is_better"))
    folder = context.run.folder / CHECKPOINTS
    best.point(folder, best.of_run(folder, by))


def begin_anew(context: Context) -> None:
    """Keeps what an unfinished run has trained beside it, and forgets it."""
    folder = context.run.folder
    if not checkpoints.named(folder / CHECKPOINTS):
        return
    kept = files.set_aside(folder / CHECKPOINTS)
    for name in (channel.METRICS, EVALUATIONS):
        if (folder / name).is_file():
            (folder / name).rename(kept / name.replace("/", "-"))
    channel.clear(folder)
    LOG.warning(
        "train: begins anew (%s=%s); what was trained is kept as %s", RESUME_FROM, OFF, kept
    )


def check_given(context: Context) -> None:
    """Compares the checkpoint that the user names: with its manifest where envtune has made it,
    and with the model. Raises Ended."""
    if not context.config.resume_from:
        return
    given = Path(context.config.resume_from)
    try:
        reason = _damage(given) or _misfit(context, given)
    except OSError as error:
        raise Ended(Exit.DISK, _unreadable(error)) from error
    if reason:
        told = f"{given} {context.clean(reason)}; name another checkpoint in {RESUME_FROM}"
        raise Ended(Exit.CONFIG, f"{told} (or AXOLOTL_RESUME_FROM_CHECKPOINT)")


def _damage(given: Path) -> str:
    if manifests.is_missing(given):
        return ""
    reason = manifests.problem(given, checkpoints.state(given).get("global_step", -1), "")
    return f"is damaged: {reason}" if reason else ""


def _misfit(context: Context, given: Path) -> str:
    """How a checkpoint is another model's than the base that is trained."""
    base = hubcache.base_folder(context.config, context.environ)
    if base is None:
        return ""
    adapter, is_one = context.config.plain().get("adapter"), (given / adapterfiles.CONFIG).exists()
    if is_one and not adapter:
        return "holds an adapter, and the whole model is to be trained (AXOLOTL_ADAPTER)"
    if adapter and not is_one and adapterfiles.shards(given):
        return f"holds a whole model, and {adapter} is to be trained (AXOLOTL_ADAPTER)"
    try:
        if is_one:
            found = compatibility.of_another(adapterfiles.adapter(given), adapterfiles.base(base))
        else:
            found = compatibility.other_shapes(*map(adapterfiles.tensors, (given, base)))
    except weights.UNREADABLE as error:
        if isinstance(error, OSError) and not manifests.tells_of_damage(error):
            raise
        return f"cannot be read: {error}"
    return f"is another model's than {base}: {found[0]}" if found else ""


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
    _note(context, path.name, reason, str(kept.relative_to(context.run.folder)))


def _note(context: Context, checkpoint: str, reason: str, kept: str) -> None:
    told = {"checkpoint": checkpoint, "reason": reason, "kept": kept}
    before = folders.read_record(context.run.folder).get("damaged", [])
    record.update(context.run, damaged=[*before, told])


def tell_damaged_best(context: Context, outcome: Outcome) -> None:
    """What was put aside at the end, where the best was to be loaded, and what was instead."""
    for told in outcome.damaged:
        reason = context.clean(told["reason"])
        LOG.warning("train: the best, %s, is damaged: %s; it is put aside as %s",
                    told["checkpoint"], reason, told["kept"])  # fmt: skip
        _note(context, told["checkpoint"], f"is damaged: {reason}", told["kept"])
    if outcome.damaged:
        link = context.run.folder / CHECKPOINTS / best.LINK
        instead = os.readlink(link) if link.is_symlink() else "the last step"
        LOG.warning("train: the result has the weights of %s", instead)


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

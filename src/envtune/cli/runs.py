"""The verb that lists runs, and frees what the finished ones do not need any more."""

import argparse
import json
import logging
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from envtune.cli import target
from envtune.cli.console import show, width
from envtune.cli.termination import Result
from envtune.columns import columns
from envtune.errors import Exit, Refused
from envtune.runs import caches, folders, listing
from envtune.runs.folders import Run
from envtune.runs.listing import Listed

LOG = logging.getLogger("envtune")
_HEAD = ("state", "step", "loss", "size", "age", "run")
# Characters of a name's end, with its number.
_NUMBER = 8
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def runs(args: argparse.Namespace) -> Result:
    """Tells of the runs below the outputs, or frees what they do not need."""
    outputs, shared, names = target.named(args)
    every = listing.runs(outputs)
    chosen = [folders.named(outputs, name) for name in names] or every
    if args.prune:
        total = _pruned(chosen, every, dry=args.dry_run)
        total += 0 if names else _unused(shared, every, dry=args.dry_run)
        how = "would be freed; leave --dry-run out" if args.dry_run else "freed"
        return Exit.DONE, f"{_bytes(total)} {how}"
    listed = [listing.look(run) for run in chosen]
    if args.json:
        show(json.dumps([_plain(one) for one in listed], indent=2))
    else:
        show(table(listed, datetime.now(UTC), width(sys.stdout)) if listed else _none(outputs))
    return Exit.DONE, ""


def _none(outputs: Path) -> str:
    return f"no run yet below {outputs}"


def table(listed: Sequence[Listed], now: datetime, wide: int | None) -> str:
    """The runs in columns. In a terminal a long name loses its middle, never its number."""
    rows = [
        (one.state, "-" if one.step is None else str(one.step),
         "-" if one.loss is None else f"{one.loss:.4f}", _bytes(one.size),
         _age((now - one.created).total_seconds()), one.run.name)
        for one in listed
    ]  # fmt: skip
    text = columns(_HEAD, rows)
    if wide is None:
        return text
    room = wide - text.index(_HEAD[-1])
    return columns(_HEAD, [(*row, _short(name, room)) for *row, name in rows], wide)


def _short(name: str, room: int) -> str:
    if len(name) <= room:
        return name
    end = max(_NUMBER, (room - 3) // 2)
    return f"{name[: max(0, room - 3 - end)]}...{name[-end:]}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _age(seconds: float) -> str:
    """In the largest unit that there is one of."""
    whole, unit = next(((n, u) for n, u in _UNITS if seconds >= n), _UNITS[-1])
    return f"{max(0, seconds) // whole:.0f} {unit}"


def _plain(one: Listed) -> dict[str, object]:
    return {
        "name": one.run.name, "folder": str(one.run.folder), "state": one.state,
        "step": one.step, "loss": one.loss, "bytes": one.size,
        "created": one.created.isoformat(timespec="seconds"),
    }  # fmt: skip


def _unused(shared: Path, every: Sequence[Run], *, dry: bool) -> int:
    """Frees prepared rows that nobody uses, and tells of each. Returns their bytes."""
    total = 0
    for entry in caches.unused(shared, every, now := time.time()):
        size = listing.freed([entry])
        if not dry and not caches.free(entry, now):
            continue
        total += size
        how = "would free" if dry else "freed"
        LOG.info("%s: %s rows that no start has used for a month: %s", entry, how, _bytes(size))
    return total


def _pruned(chosen: Sequence[Run], every: list[Run], *, dry: bool) -> int:
    """Frees checkpoints and tells of each run what became of it. Returns their bytes."""
    total = 0
    for run in chosen:
        paths = listing.freeable(run, every)
        size = listing.freed(paths)
        if not run.finished:
            why = "is not finished and goes on from its checkpoints"
            LOG.info("%s: kept: it %s", run.name, why)
        elif paths:
            total += size if dry or _freed(run, paths) else 0
            names = ", ".join(path.name for path in paths)
            LOG.info(
                "%s: %s %s: %s", run.name, "would free" if dry else "freed", names, _bytes(size)
            )
    return total


def _freed(run: Run, paths: list[Path]) -> bool:
    try:
        listing.prune(run, paths)
    except Refused as refused:
        LOG.warning("%s: kept: %s", run.name, refused.line)
        return False
    return True

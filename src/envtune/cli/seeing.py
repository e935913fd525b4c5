"""The verbs that look on: the page of a run, two runs side by side, and a run as it goes."""

import argparse
import io
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from envtune import files
from envtune.cli import target
from envtune.cli.console import show, width
from envtune.cli.termination import Result
from envtune.columns import columns
from envtune.errors import Exit, Problem, Refused
from envtune.settings import sources

if TYPE_CHECKING:
    from envtune.events import Follower
    from envtune.runs.folders import Run
    from envtune.watch.story import Story

LOG = logging.getLogger("envtune")
# Seconds between two looks, and between two lines where no terminal is.
_LOOK, _EVERY = 1.0, 10.0
_WIDTH = 80


def report(args: argparse.Namespace) -> Result:
    """write report.html of a run, the newest where none is named; of two: compare them"""
    from envtune.watch import report as page

    chosen = _runs(args, most=2)
    if len(chosen) == 2:
        show(_compared(chosen[0], chosen[1]))
        return Exit.DONE, ""
    show(str(page.write(chosen[0].folder, sources.read().secrets)))
    return Exit.DONE, ""


def _runs(args: argparse.Namespace, most: int) -> list["Run"]:
    from envtune.runs import folders

    outputs, _, names = target.named(args)
    if len(names) > most:
        what = "one run at a time" if most == 1 else "a run, or two to compare"
        raise Refused([Problem(names[most], what)])
    wanted: list[str | None] = [*names] or [None]
    return [folders.named(outputs, name) for name in wanted]


def _compared(first: "Run", second: "Run") -> str:
    from envtune.runs import folders
    from envtune.watch import screen, story

    told = [(run.name, story.of(run.folder), _report(run.folder)) for run in (first, second)]
    resolved = [folders.read_record(run.folder).get("resolved", {}) for run in (first, second)]
    other = list(screen.differences(resolved[0], resolved[1]))
    tables = [screen.compared(told)]
    if other:
        tables.append(columns(("setting", "A", "B"), other, width(sys.stdout)))
    return "\n\n".join(tables)


def _report(folder: Path) -> dict[str, object]:
    try:
        found: dict[str, object] = files.read_json(folder / "report.json")
    except (OSError, ValueError):
        return {}
    return found


def watch(args: argparse.Namespace) -> Result:
    """look on while a run goes: RUN, or the newest; ends with the run, or with Ctrl-C"""
    from envtune.events import Follower
    from envtune.watch.story import Story

    run = _runs(args, most=1)[0]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # bars where a terminal knows no such characters
    told, follower = Story(run.name), Follower(run.folder)
    told.feed(follower.new())
    try:
        (_draw if width(sys.stdout) else _print)(told, follower)
    except KeyboardInterrupt:
        show("")
    return Exit.DONE, ""


def _draw(told: "Story", follower: "Follower") -> None:
    """Draws over itself in a terminal."""
    from rich.live import Live
    from rich.text import Text

    def text() -> Text:
        return Text("\n".join(_lines(told)))

    with Live(text(), auto_refresh=False) as live:
        while told.outcome is None:
            time.sleep(_LOOK)
            told.feed(follower.new())
            live.update(text(), refresh=True)


def _print(told: "Story", follower: "Follower") -> None:
    """A line where something has changed, at most every few seconds."""
    show("\n".join(_lines(told)))
    shown, last = time.monotonic(), told.time
    while told.outcome is None:
        time.sleep(_LOOK)
        told.feed(follower.new())
        if told.time != last and (time.monotonic() > shown + _EVERY or told.outcome):
            shown, last = time.monotonic(), told.time
            show(" ".join(_lines(told)[:2]) if told.outcome is None else "\n".join(_lines(told)))


def _lines(told: "Story") -> list[str]:
    from envtune.watch import screen

    return list(screen.lines(told, time.time(), width(sys.stdout) or _WIDTH))

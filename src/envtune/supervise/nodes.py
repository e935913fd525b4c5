"""What the nodes of a run tell each other: one file in the run folder that all of them see.

Node 0 names the run, holds its lease and writes `launch.json`: who leads, where to resume
and how it ended. The others wait for it, train along and end as it does. A stop and a
failure travel by the files of `channel`.
"""

import logging
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from envtune import channel, files
from envtune.errors import Exit, Problem, Refused
from envtune.machine import rendezvous
from envtune.machine.rendezvous import Rendezvous
from envtune.resolve.config import RunConfig
from envtune.runs import folders, lease
from envtune.runs.contents import LAUNCH
from envtune.runs.folders import Run
from envtune.supervise.stage import Context, Ended, stopped

LOG = logging.getLogger("envtune")

_LOOK = 0.2
# How long a shared volume may take to show what another node has written, seconds.
_LAG = 60.0


@dataclass(frozen=True)
class Launch:
    """One training as node 0 announces it. `owner` is node 0's stamp, `exit` how it ended."""

    owner: str
    resume: str | None = None
    exit: int | None = None
    message: str = ""


def stamp() -> str:
    """The name of this process."""
    return channel.process_stamp(os.getpid()) or ""


def rank(context: Context) -> int:
    """Which node this is, from 0."""
    return rendezvous.rank(context.environ, context.config.parallel.nodes)


def announce(folder: Path, launch: Launch) -> None:
    files.write_json(folder / LAUNCH, asdict(launch))


def announced(folder: Path) -> Launch | None:
    try:
        return launch_of(files.read_json(folder / LAUNCH))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def launch_of(told: Mapping[str, Any]) -> Launch:
    """An announcement as JSON holds it. Raises TypeError where it is none."""
    launch = Launch(**told)
    if not isinstance(launch.owner, str) or not isinstance(launch.exit, int | None):
        raise TypeError("it names no owner")
    return launch


def _told_since(folder: Path) -> bool:
    """Whether node 0 has announced something since this process began. An older end may be that
    of an earlier start, which node 0 is about to try again."""
    ticks = int(stamp().split(":")[1])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return (folder / LAUNCH).stat().st_mtime > time.time() - age


def lost(folder: Path, launch: Launch) -> bool:
    """Whether node 0 is not there any more, or another one is. A look that fails, as a shared
    volume's may, is told by a second one."""
    if lease.holder(folder) == launch.owner:
        return False
    time.sleep(_LOOK)
    return lease.holder(folder) != launch.owner


def join(config: RunConfig, key: str, outputs: Path, logs: Path, where: Rendezvous) -> Run:
    """The run that node 0 has claimed for this key, once it can be read. Raises Refused."""
    seconds = config.setting("SFT_RENDEZVOUS_SECONDS")
    LOG.info("node %d of %d: waiting for node 0's run", where.rank, where.nodes)
    started = time.monotonic()
    while (run := _claimed(config, key, outputs, logs)) is None:
        waited = time.monotonic() - started
        if waited > min(_LAG, seconds / 2) and _listens(where):
            raise Refused([_unshared(outputs, where)])
        if waited > seconds:
            raise Refused([_absent(where, seconds)])
        time.sleep(_LOOK)
    return run


def _claimed(config: RunConfig, key: str, outputs: Path, logs: Path) -> Run | None:
    folder = folders.find(config, key, outputs)
    if folder is None or folders.read_record(folder)["key"] != key:
        return None
    run = folders.open_run(folder, logs)
    if run.finished:
        return None if config.setting("SFT_RERUN") else run
    return run if (folder / "config" / "resolved.json").exists() else None


def _listens(where: Rendezvous) -> bool:
    """Whether node 0 waits for the others at the meeting point, which it does after its
    run folder is there."""
    try:
        with socket.create_connection(where.meeting, timeout=1):
            return True
    except OSError:
        return False


def _unshared(outputs: Path, where: Rendezvous) -> Problem:
    host, port = where.meeting
    return Problem(
        "SFT_OUTPUTS_DIR",
        f"node 0 trains at {host}:{port} and its run is not in {outputs}; mount the same volume "
        "there on every node, and start every node with the same variables",
    )


def _absent(where: Rendezvous, seconds: int) -> Problem:
    host, port = where.meeting
    return Problem(
        "MASTER_ADDR",
        f"node 0 ({host}:{port}) has not come within {seconds} s (SFT_RENDEZVOUS_SECONDS); the "
        "next start waits again",
        Exit.NETWORK,
    )


def wait_for_launch(context: Context, where: Rendezvous) -> Launch | None:
    """What node 0 announces, or None where the run is finished already.

    Raises Ended, as node 0 did where it has ended before it trained.
    """
    seconds = context.config.setting("SFT_RENDEZVOUS_SECONDS")
    deadline = time.monotonic() + seconds
    while not context.run.finished:
        launch = announced(context.run.folder)
        if launch and launch.exit is None and not lost(context.run.folder, launch):
            return launch
        if launch and launch.exit is not None and _told_since(context.run.folder):
            raise Ended(Exit(launch.exit), launch.message)
        _pause(context, context.stops.asked, deadline, str(_absent(where, seconds)))
    return None


def wait_for_end(context: Context, launch: Launch) -> tuple[Exit, str]:
    """How node 0 ends this launch; its own end where node 0 has none."""
    folder, stops = context.run.folder, context.stops
    while not (now := announced(folder)) or now.owner != launch.owner or now.exit is None:
        if context.run.finished:
            return Exit.DONE, f"done: {folder}"
        if stops.asked and time.monotonic() > stops.deadline():
            end = stopped(context, "node 0 still at work")
            return end.exit, end.message
        if lost(folder, launch):
            if stops.asked:
                end = stopped(context, "node 0 gone")
                return end.exit, end.message
            return Exit.HARDWARE, "node 0 is gone; the next start resumes"
        time.sleep(_LOOK)
    return Exit(now.exit), now.message


def wait_for_host(context: Context, where: Rendezvous) -> None:
    """Until the meeting point's name is known: Kubernetes' DNS may take minutes. Raises
    Ended."""
    seconds = context.config.setting("SFT_RENDEZVOUS_SECONDS")
    deadline, told = time.monotonic() + seconds, False
    while not _known(where.address):
        if not told:
            LOG.info("train: waiting for the name %s (MASTER_ADDR)", where.address)
            told = True
        late = f"MASTER_ADDR: {where.address} has no address after {seconds} s; is it the name "
        asked = context.stops.asked or channel.stop_requested(context.run.folder)
        _pause(context, asked, deadline, f"{late}of node 0, and does its Service publish it early?")


def _known(host: str) -> bool:
    try:
        return bool(socket.getaddrinfo(host, None))
    except (OSError, UnicodeError):
        return False


def _pause(context: Context, asked: bool, deadline: float, late: str) -> None:
    """A moment's wait. Raises Ended when a stop is asked for, or after the deadline."""
    if asked:
        raise stopped(context, "the start")
    if time.monotonic() > deadline:
        raise Ended(Exit.NETWORK, late)
    time.sleep(_LOOK)

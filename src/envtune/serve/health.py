"""Whether a container does its work, for a health check. Opens no port and needs no variable."""

import os
from pathlib import Path

from envtune import channel, files
from envtune.errors import Refused
from envtune.runs import folders, lease, listing
from envtune.runs.contents import SERVER


def announce(folder: Path, url: str) -> None:
    """Leaves the address of a server of this run, which holds while this process lives."""
    stamp = channel.process_stamp(os.getpid())
    files.write_json(folder / SERVER, {"url": url, "stamp": stamp}, durable=False)


def look(outputs: Path) -> tuple[bool, str]:
    """Whether the newest run is well, and the line that says so.

    A run that has ended well, or not begun, is well: a container that idles is. A failure ends
    the container, and its exit code says more than this.
    """
    try:
        folder = folders.named(outputs, None).folder
    except Refused:
        return True, "no run yet"
    if url := address(folder) or _of_an_older_one(outputs):
        from envtune.serve.api import Api

        return (True, f"{url} answers") if Api(url).healthy() else (False, f"{url} is silent")
    stamp, silence = lease.last(folder)
    here = bool(stamp) and channel.alive(stamp)
    if here and silence > lease.STALE:
        return False, f"{folder.name}: process {stamp} has been silent for {silence:.0f} s"
    return True, f"{folder.name} is {'at work' if here else 'at rest'}"


def _of_an_older_one(outputs: Path) -> str:
    """The address of a server of the newest trained run, which is served where a newer attempt
    has no result; empty for none."""
    trained = listing.trained(outputs)
    return address(trained.folder) if trained else ""


def address(folder: Path) -> str:
    """The address of this machine's server of a run; empty where none is announced."""
    try:
        said = files.read_json(folder / SERVER)
        return str(said["url"]) if channel.alive(str(said["stamp"])) else ""
    except (OSError, ValueError, LookupError, TypeError):
        return ""

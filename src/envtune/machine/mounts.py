"""What is mounted where in this container, as the kernel tells (proc(5): mountinfo)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from envtune.machine import hardware

_ESCAPED = re.compile(r"\\([0-7]{3})")
# File systems of a container's own layers: what lies there goes with the container.
LAYERS = ("overlay", "aufs", "fuse-overlayfs", "vfs")


@dataclass(frozen=True)
class Mount:
    """A file system at a path. `source` is a device, a volume's folder or a name."""

    path: Path
    kind: str
    source: str

    def __str__(self) -> str:
        return f"{self.path} ({self.kind}, {self.source})"


def mounts() -> list[Mount]:
    """All of them; of several at one path the last is what is seen."""
    return list(_read(hardware.read(Path("/proc/self/mountinfo"))))


def _read(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        where, words = before.split(), after.split()
        if len(where) > 4 and len(words) > 1:  # the fields up to the path
            yield Mount(Path(_plain(where[4])), words[0], _plain(words[1]))


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)), text)


def over(path: Path) -> Mount | None:
    """The mount that a path lies on."""
    holding = [mount for mount in mounts() if path.is_relative_to(mount.path)]
    return max(reversed(holding), key=lambda mount: len(mount.path.parts), default=None)


def within(folder: Path) -> list[Mount]:
    """What is mounted at a folder or below it."""
    return [mount for mount in mounts() if mount.path.is_relative_to(folder)]

"""Where a volume lies, and whether a folder can be written to."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from envtune.errors import Problem
from envtune.machine import runpod

# Below the working folder of the image, where people mount theirs who were told that a volume over
# all of /workspace hides an image's own files.
_BELOW = ("data/axolotl-artifacts", "data")


def base(environ: Mapping[str, str]) -> str:
    """The folder below which runs and logs go where no setting says it: the working one, on a pod
    of RunPod's its volume; of /workspace the part that a volume lies on, if only a part."""
    folder = runpod.VOLUME if runpod.id_of(environ) else "."
    if os.path.abspath(folder) != runpod.VOLUME or os.path.ismount(runpod.VOLUME):
        return folder
    parts = (os.path.join(runpod.VOLUME, part) for part in _BELOW)
    return next(filter(os.path.ismount, parts), folder)


def writable(name: str, folder: str) -> Problem | None:
    """A problem when nothing can be written under `folder` (it need not exist yet)."""
    path = Path(folder)
    if os.path.exists(path) and not os.path.isdir(path):
        return Problem(name, f"{path} is a file; the runs need a folder there")
    while not os.path.exists(path):  # False for a name that is too long, too
        path = path.parent
    if os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK) and not _refuses(path):
        return None
    return Problem(
        name,
        f"{folder} cannot be written by uid {os.getuid()} ({path} forbids it); mount a "
        "writable volume there or name another folder",
    )


def _refuses(path: Path) -> bool:
    """Whether a file system takes no files although its permissions allow them (/proc)."""
    try:
        with tempfile.TemporaryFile(dir=path):
            return False
    except OSError:
        return True

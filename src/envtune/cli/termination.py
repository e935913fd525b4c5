"""How a start ends: its exit code, and its last word where Kubernetes looks for it."""

import hashlib
import logging
import os
from contextlib import suppress
from pathlib import Path

from envtune import files
from envtune.errors import Exit

LOG = logging.getLogger("envtune")
_MESSAGE_LIMIT = 4096
_KUBERNETES_LOG = "/dev/termination-log"

# The last word of a stop that came before the run had one of its own.
BEFORE_TRAINING = {
    Exit.STOPPED: "stopped before training: nothing to save yet",
    Exit.INTERRUPTED: "interrupted before training",
}

# What a verb comes to: the exit code, and a line for the termination message.
Result = tuple[Exit, str]


def ended_with(code: int) -> Exit:
    """What a code means that a shell has seen: one that is none of ours was a kill or a crash."""
    return Exit(code) if code in list(Exit) else Exit.BUG


def terminate(message: str) -> None:
    """Leaves the last word where Kubernetes looks for it."""
    named = os.environ.get("TERMINATION_LOG_FILE")
    target = named or _KUBERNETES_LOG
    if not named and not Path(target).exists():
        return
    data = message.encode()
    if len(data) > _MESSAGE_LIMIT:
        data = data[: _MESSAGE_LIMIT - 4].decode(errors="ignore").encode() + b" ..."
    if named and _is_anothers(Path(target)):
        LOG.warning("%s is no termination message of envtune's and stays as it is", target)
        return
    try:
        files.put(Path(target), data)
    except OSError as error:
        LOG.warning("the termination message cannot be written to %s: %s", target, error.strerror)
        return
    if named and Path(target).is_file():
        with suppress(OSError):  # a file that is mounted alone has nothing beside it
            files.put(_beside(Path(target)), _digest(data))


def _is_anothers(path: Path) -> bool:
    """Whether a file holds what is no last word of ours: that has its digest beside it."""
    try:
        held = files.head(path, _MESSAGE_LIMIT + 1)
    except OSError:
        return False  # there is none, or no regular file
    if not held:
        return False
    try:
        return files.head(_beside(path), _MESSAGE_LIMIT) != _digest(held)
    except OSError:
        return True


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).hexdigest().encode()

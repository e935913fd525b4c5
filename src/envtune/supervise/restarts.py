"""Which failure no restart can mend, and how often this container has failed.

A platform restarts what has ended, for ever and at a price. What the user has to change is
not tried again; what may pass is tried until it fails at the same place too often. A start
counts as killed until its end is told, so that one which the kernel ends is counted too.

The count lies in the run's folder, or beside the runs where a start has none: one file for
each container and what its user has set, so that a larger machine and other settings are new.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import checkpoints
from envtune.errors import Exit
from envtune.machine import hardware
from envtune.resolve.owned import CHECKPOINTS
from envtune.settings.sources import Inputs
from envtune.supervise.stage import LOG

# Starts that may fail without a new checkpoint between them.
_STARTS = {Exit.BUG: 2, Exit.DISK: 5, Exit.NETWORK: 5, Exit.HARDWARE: 5}
# Ends that are no failure, or that have a count of their own.
_FREE = (Exit.DONE, Exit.STOPPED, Exit.INTERRUPTED, Exit.BUDGET)
_KILLED = "the last start was killed from outside, without a checkpoint of its own"
# Seconds before the second try; each further one waits twice as long.
_PAUSE = 10.0

# What the last start came to: exit, message, at, times. `at` is its newest checkpoint.
# Of one that has not ended yet also `before`, the outcome of the start before it.
Outcome = dict[str, Any]


def outcome(before: Mapping[str, Any], exit_: Exit, message: str, at: str) -> Outcome:
    """The outcome of a start; `before` is that of the last one."""
    now = {"exit": int(exit_), "at": at}
    again = {name: before.get(name) for name in now} == now
    return {**now, "message": message, "times": int(before["times"]) + 1 if again else 1}


def is_open(last: Mapping[str, Any]) -> bool:
    """Whether what ended like this is not to be tried again by a restart."""
    exit_ = Exit(last.get("exit", Exit.DONE))
    return exit_ not in _FREE and int(last.get("times", 1)) >= _STARTS.get(exit_, 1)


def pause(last: Mapping[str, Any]) -> float:
    """Seconds before what ended like this is tried again."""
    return _PAUSE * 2.0 ** (last["times"] - 1) if last.get("exit") in _STARTS else 0.0


class Starts:
    """The starts of this container with these settings, counted in `folder`: a run's, or that
    of all runs."""

    def __init__(self, folder: Path, inputs: Inputs) -> None:
        given = [(entry.name, entry.text) for layer in inputs.layers for entry in layer.entries]
        key = json.dumps([hardware.container(inputs.environ), given])
        self.folder = folder
        self.file = folder / f".starts-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"

    def begin(self) -> Outcome | None:
        """Counts a start; the outcome of the last one where this one would come to the same."""
        last = self._last()
        last.pop("before", None)
        if is_open(last) and last["at"] == self._at():
            return last
        killed = outcome(last, Exit.HARDWARE, _KILLED, self._at())
        files.write_json(self.file, {**killed, "before": last})
        return None

    def end(self, exit_: Exit, message: str) -> Outcome:
        """The outcome of a start, kept for the next one.

        A refusal before the beginning costs nothing and is looked at again: others may hold the
        run. What cannot be kept has been tried often enough.
        """
        last = self._last()
        now = outcome(last.get("before", last), exit_, message, self._at())
        try:
            if exit_ in _FREE:
                self.file.unlink(missing_ok=True)
            elif "before" in last or exit_ in _STARTS:
                self.folder.mkdir(parents=True, exist_ok=True)
                files.write_json(self.file, now)
        except OSError as error:
            LOG.warning("%s cannot be written: %s", self.file, error.strerror)
            now["times"] = max(_STARTS.values())
        return now

    def _at(self) -> str:
        newest = checkpoints.newest(self.folder / CHECKPOINTS)
        return newest.name if newest else ""

    def _last(self) -> Outcome:
        try:
            last = files.read_json(self.file)
        except (OSError, ValueError):
            return {}
        return last if isinstance(last, dict) and _is_outcome(last) else {}


def _is_outcome(last: Mapping[str, Any]) -> bool:
    """Whether a count says what it counted; of one that a disk has damaged nothing is known."""
    known = last.get("exit") in set(Exit) and isinstance(last.get("times"), int)
    return known and isinstance(last.get("at"), str) and isinstance(last.get("message"), str)

"""The only channel between the supervisor and the training process: two files.

`stop` is the supervisor's request to commit a checkpoint and end; `outcome.json` is the
plugin's account of how far training is. Both lie in the run folder. An exit code is not
part of it: torchrun, accelerate and Axolotl each lose or change it.
"""

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

STOP = "stop"
OUTCOME = "outcome.json"
METRICS = "metrics.jsonl"

# What the supervisor tells the child by its environment.
RUN_DIR = "ENVTUNE_RUN_DIR"
SUPERVISOR = "ENVTUNE_SUPERVISOR"
RESUME = "ENVTUNE_RESUME"

# The states of an outcome, in order; the last three are final.
STATES = ("starting", "data", "model", "training", "stopped", "finished", "failed")


@dataclass(frozen=True)
class Outcome:
    """How far training is. `checkpoint` is the last committed one, relative to the run.

    `phase` is the state that a failed one was in.
    """

    state: str = "starting"
    phase: str = "starting"
    step: int = 0
    max_steps: int = 0
    checkpoint: str | None = None
    resumed_from: int = 0
    world_size: int = 1
    error: str = ""

    def write(self, run_dir: Path, *, durable: bool = True) -> None:
        """Replaces outcome.json in one move, so that no reader sees half of it."""
        write_json(run_dir / OUTCOME, asdict(self), durable=durable)


def read_outcome(run_dir: Path) -> Outcome | None:
    """The account that is there, or None before the plugin has written one."""
    try:
        return replace(Outcome(), **json.loads((run_dir / OUTCOME).read_text()))
    except FileNotFoundError:
        return None


def request_stop(run_dir: Path) -> None:
    (run_dir / STOP).touch()


def clear(run_dir: Path) -> None:
    """Removes both files before a child starts."""
    (run_dir / STOP).unlink(missing_ok=True)
    (run_dir / OUTCOME).unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Writes JSON aside, syncs it and moves it to its name."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n", durable=durable)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes text aside, syncs it (unless not `durable`) and moves it to its name."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    with aside.open("w") as stream:
        stream.write(text)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(aside, path)


def process_stamp(pid: int) -> str | None:
    """A name for a process that no later process of the same number shares."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else f"{pid}:{fields[19]}"


def alive(stamp: str) -> bool:
    """Whether the process behind a stamp still runs."""
    return process_stamp(int(stamp.split(":", maxsplit=1)[0])) == stamp

"""The channel between the supervisor and the training process: files of the run folder.

`stop` is the supervisor's request to commit a checkpoint and end; `outcome.json` is the
plugin's account of how far training is; by `.ranks` each rank makes itself known. An exit code
is not part of it: torchrun, accelerate and Axolotl each lose or change it.
"""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from envtune import files

STOP = "stop"
OUTCOME = "outcome.json"
METRICS, EVALUATIONS = "metrics.jsonl", "eval/metrics.jsonl"
# A file for each rank with its process's stamp, and where the stacks of a hang are kept.
RANKS, STACKS = ".ranks", "stacks"

# What the supervisor tells the child by its environment.
RUN_DIR = "ENVTUNE_RUN_DIR"
SUPERVISOR = "ENVTUNE_SUPERVISOR"
OWNER = "ENVTUNE_OWNER"
RESUME = "ENVTUNE_RESUME"
RESUME_FORCE = "ENVTUNE_RESUME_FORCE"
SAVE_SECONDS = "ENVTUNE_SAVE_SECONDS"
LAYOUT = "ENVTUNE_CHAT_LAYOUT"

# The states of an outcome, in order; the last three are final.
STATES = ("starting", "data", "model", "training", "stopped", "finished", "failed")
FINAL = STATES[4:]
# What is done while training.
STEP, EVALUATION, SAVE = "step", "evaluation", "save"


# Logged values that say the same twice, or count the padding too.
_NOISE = ("num_input_tokens_seen", "ppl", "tokens/", "train_", "memory/device_reserved")


# Fields that may be nothing, beside what else they hold.
_OR_NONE: dict[str, Any] = {
    "checkpoint": (str, type(None)),
    **dict.fromkeys(("padding", "mfu"), (int, float, type(None))),
}
_KINDS: dict[type, Any] = {str: str, int: int, float: (int, float), bool: bool, tuple: list}


@dataclass(frozen=True)
class Outcome:
    """How far training is. `checkpoint` is the last committed one, relative to the run.

    `phase` is the state that a failed one was in, `owner` the stamp of the supervisor that
    started it (node 0's where there are several), `early` that a rule of the configuration
    ended it before the last step. `doing` is a step, an evaluation or a save, `beats` how often
    something of it was done, `step_seconds` the median of the last steps, by the child's clock.
    `checkpoint_bytes` is the size of the last checkpoint, `bytes_to_come` what more is to be saved.
    `peak_allocated` and `peak_reserved` are the most bytes of rank 0's GPU, `padding` the share of
    slots without a token, `mfu` the share of the GPUs' peak, of this start.
    `tokens` without padding and `seconds` in steps count all starts of the run. `saves`, the
    seconds in them and those of their checks and digests are of this start alone. `damaged` are
    the checkpoints that were put aside when the best was to be loaded: name, reason and place.
    """

    owner: str = ""
    state: str = "starting"
    phase: str = "starting"
    step: int = 0
    max_steps: int = 0
    checkpoint: str | None = None
    resumed_from: int = 0
    tokens: int = 0
    seconds: float = 0.0
    saves: int = 0
    save_seconds: float = 0.0
    verify_seconds: float = 0.0
    damaged: tuple[dict[str, str], ...] = ()
    padding: float | None = None
    mfu: float | None = None
    peak_allocated: int = 0
    peak_reserved: int = 0
    early: bool = False
    doing: str = ""
    beats: int = 0
    checkpoint_bytes: int = 0
    bytes_to_come: int = 0
    step_seconds: float = 0.0
    world_size: int = 1
    error: str = ""

    def write(self, run_dir: Path, *, durable: bool = True) -> None:
        """Replaces outcome.json in one move, so that no reader sees half of it."""
        files.write_json(run_dir / OUTCOME, asdict(self), durable=durable)


def read_outcome(run_dir: Path, owner: str | None = None) -> Outcome | None:
    """The account that is there, or None before the plugin has written one.

    With an `owner` only the account of a process that this supervisor started.
    """
    try:
        outcome = outcome_of(files.read_json(run_dir / OUTCOME))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return outcome if owner is None or outcome.owner == owner else None


def outcome_of(told: Mapping[str, Any]) -> Outcome:
    """An account as JSON holds it. Raises ValueError or TypeError where it is none."""
    outcome, usual = replace(Outcome(), **told), asdict(Outcome())
    for name, value in told.items():
        kinds = _OR_NONE.get(name) or _KINDS[type(usual[name])]
        if not isinstance(value, kinds):
            raise TypeError(f"{name} is {value!r}")
    return outcome


def request_stop(run_dir: Path) -> None:
    (run_dir / STOP).touch()


def stop_requested(run_dir: Path) -> bool:
    return (run_dir / STOP).exists()


def clear(run_dir: Path) -> None:
    """Removes what an earlier child has told, before one starts."""
    forget_ranks(run_dir)
    (run_dir / STOP).unlink(missing_ok=True)
    (run_dir / OUTCOME).unlink(missing_ok=True)


def forget_ranks(run_dir: Path) -> None:
    """Removes the ranks' files, which say nothing once their processes are gone."""
    shutil.rmtree(run_dir / RANKS, ignore_errors=True)


def line(logged: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """A line of metrics.jsonl of what the Trainer logs; `seconds` in steps over all starts."""
    told = {"step": logged["step"]}
    told |= {name: value for name, value in logged.items() if not name.startswith(_NOISE)}
    if (tokens := logged.get("num_input_tokens_seen")) is not None:
        told["tokens"] = tokens
    return {**told, "seconds": round(seconds, 3)}


def read_line(text: str | bytes) -> dict[str, Any]:
    """What a line of metrics.jsonl holds; nothing where it is half of one, or none at all."""
    try:
        told = files.parse(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) and _is_measured(told) else {}


def _is_measured(told: Mapping[str, Any]) -> bool:
    numbers = [told.get("seconds"), *(told[name] for name in ("loss", "eval_loss") if name in told)]
    plain = all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
    return plain and type(told.get("step")) is int and len(numbers) > 1


def process_stamp(pid: int) -> str | None:
    """A name for a process that no later process of the same number shares."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else f"{pid}:{fields[19]}"


def alive(stamp: str) -> bool:
    """Whether the process behind a stamp still runs; of what is no stamp there is none."""
    pid = stamp.split(":", maxsplit=1)[0]
    return pid.isdecimal() and process_stamp(int(pid)) == stamp

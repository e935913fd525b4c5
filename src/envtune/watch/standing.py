"""How a run stands at this moment and what to do next, computed from what lies on the disk.

Whoever holds the lease is at work, and the stream of events says at what. Without a holder the
record says how the last start ended; a start that was killed has said nothing.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envtune import channel
from envtune.artifacts import checkpoints
from envtune.errors import Exit
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs import folders, lease, record
from envtune.runs.contents import COMPLETE
from envtune.runs.folders import Run
from envtune.serve import health
from envtune.supervise import budget, restarts
from envtune.venvs import door
from envtune.watch import story
from envtune.watch.story import Story

# The states, by their names in `envtune status --json`.
STATES = (
    "configured", "waiting", "fetching", "preparing", "loading", "training", "saving", "stopping",
    "working", "stopped", "failed", "killed", "done", "serving",
)  # fmt: skip
_STAGES = {"fetch": "fetching", "prepare": "preparing", "train": "training"}
_WORDS = {
    "fetch": "is fetching its models", "prepare": "is preparing its rows",
    "export": "is exporting", "quantise": "is making a smaller copy",
    "parity": "is proved to answer in vLLM as it was trained", "evaluate": "is evaluated",
    "publish": "is published",
}  # fmt: skip
# What ended by these the machine has done, and not what is set.
_MACHINES = (Exit.MEMORY, Exit.DISK, Exit.NETWORK, Exit.HARDWARE)


@dataclass(frozen=True)
class Standing:
    """One run's. `text` says of it what is true, `after` is the command that goes on from there;
    `left` in seconds and `loss` where they are known, `heard` how long ago it last told, in s."""

    run: Run
    state: str
    text: str
    after: str
    step: int = 0
    max_steps: int = 0
    loss: float | None = None
    left: float | None = None
    checkpoint: str = ""
    heard: float | None = None
    url: str = ""


def of(run: Run) -> Standing:
    """How a run stands now."""
    told, holder = story.of(run.folder), lease.holder(run.folder)
    # What an earlier start has left says nothing of the one that is at work.
    outcome = channel.read_outcome(run.folder, holder or None)
    newest = checkpoints.newest(run.folder / CHECKPOINTS)
    state, text, after = _state(run, told, outcome, held=bool(holder))
    last = told.last or record.last_metric(run.folder)
    standing = Standing(
        run, state, text, after,
        step=max(told.step, outcome.step if outcome else 0),
        max_steps=told.max_steps or (outcome.max_steps if outcome else 0),
        loss=last.get("loss"),
        checkpoint=newest.name if newest else "",
        heard=max(0.0, time.time() - told.time) if told.time else None,
        url=health.address(run.folder),
    )  # fmt: skip
    return _serving(replace(standing, left=_left(told) if state == "training" else None))


def _serving(standing: Standing) -> Standing:
    if not standing.url:
        return standing
    text = f"{standing.text}; it is served at {standing.url}"
    after = f"envtune smoke-test {standing.run.name}"
    return replace(standing, state="serving", text=text, after=after)


def _state(
    run: Run, told: Story, outcome: channel.Outcome | None, *, held: bool
) -> tuple[str, str, str]:
    """The state, what is true of the run, and the command that goes on from there."""
    made = folders.read_record(run.folder)
    step, most = (outcome.step, outcome.max_steps) if outcome else (told.step, told.max_steps)
    at = f"at step {step} of {most}" if step else ""
    if held:
        state, text = _at_work(run, told, outcome, at)
        return state, text, f"tail -f {run.logs / (told.stage or 'train') / 'run.log'}"
    if (run.folder / COMPLETE).exists():
        artifact = made.get("stages", {}).get("train", {}).get("artifact", "")
        return "done", f"is done: {run.folder / artifact}", "envtune serve  # or envtune evaluate"
    if last := made.get("outcome"):
        return _ended(last, at, run)
    if not told.starts and outcome is None:
        return (
            "configured",
            "is configured and was not started",
            f"envtune run --folder {run.folder}",
        )
    return "killed", f"was not ended by itself {at}".rstrip(), _resume()


def _at_work(run: Run, told: Story, outcome: channel.Outcome | None, at: str) -> tuple[str, str]:
    if outcome is not None and channel.stop_requested(run.folder):
        return "stopping", f"is asked to stop and saves {at}".rstrip()
    if told.outcome is not None:
        ended = f"the last start ended with {told.outcome.get('exit')}"
        return "waiting", f"begins again; {ended}"
    if not told.starts and outcome is None:
        return "waiting", "is about to start"
    if told.stage in ("", "train"):
        return _training(run, told, outcome, at)
    return _STAGES.get(told.stage, "working"), _WORDS.get(told.stage, f"is at {told.stage}")


def _training(run: Run, told: Story, outcome: channel.Outcome | None, at: str) -> tuple[str, str]:
    phase = outcome.state if outcome else ""
    begun = [path for path in checkpoints.ours(run.folder / CHECKPOINTS) if _is_half(path)]
    if begun and phase == "training":
        return "saving", f"is saving {begun[-1].name}"
    nodes = folders.read_record(run.folder).get("resolved", {}).get("parallel", {}).get("nodes", 1)
    if phase in ("", "starting") and nodes > 1:
        return "waiting", f"is at work: it waits until all of {nodes} nodes have come"
    if phase in ("", "starting", "data", "model"):
        return "loading", f"is at work: it loads its {'rows' if phase == 'data' else 'model'}"
    return "training", f"is at work {at}".rstrip()


def _is_half(path: Path) -> bool:
    """Whether a checkpoint is not committed: what a kill has left is gone before any step."""
    return not checkpoints.committed(path)


def _left(told: Story) -> float | None:
    """Seconds until the last step, at the mean of the steps so far; unknown before the first."""
    seconds = told.last.get("seconds")
    if not told.step or not told.max_steps or not seconds:
        return None
    return float(seconds) / told.step * max(0, told.max_steps - told.step)


def _ended(last: Mapping[str, Any], at: str, run: Run) -> tuple[str, str, str]:
    exit_, message = _exit(last.get("exit")), last.get("message", "")
    if exit_ == Exit.BUDGET:
        used = budget.read(run.folder).seconds / 3600
        text = f"has used {used:.2f} hours: {message}"
        return "stopped", text, f"raise the limit, then {door()}"
    looks = f"envtune doctor && {door()}" if exit_ in _MACHINES else ""
    if restarts.is_open({**last, "exit": int(exit_)}):
        text = f"failed with {int(exit_)}: {message}"
        return "failed", text, looks or f"change what it names, then {door()}"
    state = "stopped" if exit_ in (Exit.STOPPED, Exit.INTERRUPTED) else "failed"
    text = f"ended with {int(exit_)} {at}".rstrip()
    return state, f"{text}: {message}", looks or _resume()


def _exit(code: object) -> Exit:
    return next((exit_ for exit_ in Exit if exit_ == code), Exit.BUG)


def _resume() -> str:
    return f"{door()}  # goes on from its checkpoint"

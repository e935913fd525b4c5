"""How the newest run stands and what to do next, read from what lies on the disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envtune import breaker, budget, control, lease, runs
from envtune.errors import Exit, Refused

START, HELP = "scripts/autorun.sh", "envtune --help; docs/settings.md has every setting"


def text(outputs: Path) -> str:
    """A few lines for whoever opens a shell."""
    try:
        folder = runs.named(outputs, None).folder
    except Refused:
        return f"envtune: no run yet below {outputs}\nnext: envtune check, then {START}\n{HELP}"
    state, after = _state(folder)
    return f"envtune: {folder.name} {state}\nnext: {after}\n{HELP}"


def refused(refused: Refused) -> str:
    """The same where the settings do not even tell where the runs are."""
    lines = "\n".join(f"  {problem}" for problem in refused.problems)
    return f"envtune: the settings are refused:\n{lines}\nnext: change them, then {START}\n{HELP}"


def _state(folder: Path) -> tuple[str, str]:
    """What is true of a run, and the command that goes on from there."""
    record, outcome = runs.read_record(folder), control.read_outcome(folder)
    at = f"at step {outcome.step} of {outcome.max_steps}" if outcome and outcome.step else ""
    if lease.holder(folder):
        return f"is at work {at}".rstrip(), f"tail -f {record['logs']}/train/run.log"
    if (folder / runs.COMPLETE).exists():
        made = record["stages"]["train"]["artifact"]
        return f"is done: {folder / made}", "envtune serve, or envtune evaluate"
    last = record.get("outcome", {})
    if not last:
        return f"was not ended by itself {at}".rstrip(), f"{START} goes on from its checkpoint"
    return _ended(last, at, folder)


def _ended(last: Mapping[str, Any], at: str, folder: Path) -> tuple[str, str]:
    exit_, message = Exit(last["exit"]), last["message"]
    if exit_ == Exit.BUDGET:
        used = budget.read(folder).seconds / 3600
        return f"has used {used:.2f} hours: {message}", f"raise the limit, then {START}"
    if breaker.is_open(last):
        return f"failed with {int(exit_)}: {message}", f"change what it names, then {START}"
    return f"ended with {int(exit_)} {at}: {message}", f"{START} goes on from its checkpoint"

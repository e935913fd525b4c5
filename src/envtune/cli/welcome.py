"""How the newest run stands and what to do next, read from what lies on the disk, on the page
scripts/WELCOME where there is one."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envtune import channel
from envtune.errors import Exit, Refused
from envtune.runs import folders, lease
from envtune.runs.contents import COMPLETE
from envtune.supervise import budget, restarts
from envtune.venvs import beside, door, root


def text(outputs: Path) -> str:
    """The page for whoever opens a shell."""
    return _page(_newest(outputs), outputs)


def _newest(outputs: Path) -> str:
    try:
        folder = folders.named(outputs, None).folder
    except Refused:
        return _lines(f"no run yet below {outputs}", f"envtune check && {door()}")
    state, after = _state(folder)
    return _lines(f"{folder.name} {state}", after)


def refused(refused: Refused) -> str:
    """The same where the settings do not even tell where the runs are."""
    lines = "\n".join(f"  {problem}" for problem in refused.problems)
    told = _lines(f"the settings are refused:\n{lines}", f"change them, then {door()}")
    return _page(told, "the folder that they name")


def _lines(state: str, after: str) -> str:
    return f"envtune: {state}\nnext: {after}"


def _page(state: str, outputs: Path | str) -> str:
    page = root() / "scripts" / "WELCOME"
    if not page.exists():  # the wheel alone
        return f"{state}\nenvtune --help; {beside('docs/settings.md')} has every setting"
    words = {"state": state, "folder": root(), "outputs": outputs, "door": door()}
    words["settings"] = beside("docs/settings.md")
    return string.Template(page.read_text()).substitute(words).rstrip("\n")


def _state(folder: Path) -> tuple[str, str]:
    """What is true of a run, and the command that goes on from there."""
    record, outcome = folders.read_record(folder), channel.read_outcome(folder)
    at = f"at step {outcome.step} of {outcome.max_steps}" if outcome and outcome.step else ""
    if lease.holder(folder):
        return f"is at work {at}".rstrip(), f"tail -f {record['logs']}/train/run.log"
    if (folder / COMPLETE).exists():
        made = record["stages"]["train"]["artifact"]
        return f"is done: {folder / made}", "envtune serve  # or envtune evaluate"
    last = record.get("outcome", {})
    if not last:
        return f"was not ended by itself {at}".rstrip(), _resume()
    return _ended(last, at, folder)


def _ended(last: Mapping[str, Any], at: str, folder: Path) -> tuple[str, str]:
    exit_, message = Exit(last["exit"]), last["message"]
    if exit_ == Exit.BUDGET:
        used = budget.read(folder).seconds / 3600
        return f"has used {used:.2f} hours: {message}", f"raise the limit, then {door()}"
    if restarts.is_open(last):
        return f"failed with {int(exit_)}: {message}", f"change what it names, then {door()}"
    return f"ended with {int(exit_)} {at}: {message}", _resume()


def _resume() -> str:
    return f"{door()}  # goes on from its checkpoint"

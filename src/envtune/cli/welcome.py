"""How the newest run stands and what to do next, read from what lies on the disk, on the page
scripts/WELCOME where there is one."""

import string
from pathlib import Path

from envtune.errors import Refused
from envtune.runs import folders
from envtune.venvs import beside, door, root
from envtune.watch import standing as status


def text(outputs: Path, *, set_up: bool = False) -> str:
    """The page for whoever opens a shell. `set_up`: model and data are set."""
    return _page(_newest(outputs, set_up=set_up), outputs)


def _newest(outputs: Path, *, set_up: bool) -> str:
    try:
        run = folders.named(outputs, None)
    except Refused:
        known = "; what to train is set" if set_up else ""
        return _lines(f"no run yet below {outputs}{known}", f"envtune check && {door()}")
    standing = status.of(run)
    return _lines(f"{run.name} {standing.text}", standing.after)


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

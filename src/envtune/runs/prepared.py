"""Where the rows lie that a run was trained on, whoever has prepared them."""

from pathlib import Path

from envtune import files
from envtune.resolve.owned import PREPARED as AXOLOTLS
from envtune.runs.contents import PREPARED


def told(run_dir: Path) -> Path | None:
    """The folder of rows that envtune prepared for a run, or None."""
    said = run_dir / PREPARED
    return Path(files.read_json(said)["folder"]) if said.exists() else None


def trained(run_dir: Path) -> Path | None:
    """The folder of the rows that trained, as datasets keeps them, or None where it is gone or
    they are streamed. Those that Axolotl held back to evaluate lie beside and are younger."""
    if (folder := told(run_dir)) is not None:
        return folder / "train" if (folder / "train").is_dir() else None
    found = sorted((run_dir / AXOLOTLS).glob("*/state.json"), key=lambda path: path.stat().st_mtime)
    return found[0].parent if found else None


def held(run_dir: Path) -> Path | None:
    """The folder of the rows that envtune held back to evaluate on, or None."""
    folder = told(run_dir)
    return folder / "eval" if folder and (folder / "eval").is_dir() else None

"""Finds what lies beside the environment that trains, in a checkout and in the image alike:
the environments of stages that cannot share it, the door, the pages."""

import os
import sys
from pathlib import Path


def find(named: str | None, default: str) -> Path | None:
    """The Python of the environment in the folder `named`, else of `default` beside the one
    that trains. None where there is none."""
    folder = Path(named) if named else Path(sys.prefix).parent / default
    python = folder / "bin" / "python"  # its link is not followed: it would leave the environment
    return python if os.access(python, os.X_OK) else None


def beside(name: str) -> str:
    """The path of a file of the checkout or of the image, as a shell here has to write it."""
    root = Path(sys.prefix).parent
    return name if os.path.samefile(".", root) else str(root / name)


def door() -> str:
    """The command that starts a run, as a shell here has to write it."""
    return beside("scripts/autorun.sh")

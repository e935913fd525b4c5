"""Finds the environments in which stages run that cannot share the one that trains."""

import os
import sys
from pathlib import Path


def find(named: str | None, default: str) -> Path | None:
    """The Python of the environment in the folder `named`, else of `default` beside the one
    that trains. None where there is none."""
    folder = Path(named) if named else Path(sys.prefix).parent / default
    python = folder / "bin" / "python"  # its link is not followed: it would leave the environment
    return python if os.access(python, os.X_OK) else None

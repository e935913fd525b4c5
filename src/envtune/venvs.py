"""Finds what lies beside the environment that trains, in a checkout and in the image alike:
the environments of stages that cannot share it, the door, the pages. Where the wheel alone is
installed none of them is there, nor the engines."""

import importlib.util
import os
import sys
from pathlib import Path


def find(named: str | None, default: str) -> Path | None:
    """The Python of the environment in the folder `named`, else of `default` beside the one
    that trains. None where there is none."""
    folder = Path(named) if named else root() / default
    python = folder / "bin" / "python"  # its link is not followed: it would leave the environment
    return python if os.access(python, os.X_OK) else None


def wants_gpu(python: Path) -> bool:
    """Whether the vLLM of this environment was built for GPUs: it starts on nothing else.

    vLLM itself tells by the version of its distribution, which ends in `+cpu` on a CPU.
    """
    found = python.parent.parent.glob("lib/python3*/site-packages/vllm-*.dist-info/METADATA")
    versions = (line for file in found for line in file.read_text().splitlines()[:9])
    return not any(line.startswith("Version:") and line.endswith("cpu") for line in versions)


def engines() -> bool:
    """Whether this environment has what trains: the wheel brings the control plane alone."""
    return importlib.util.find_spec("axolotl") is not None


def root() -> Path:
    """The folder of the checkout or of the image."""
    return Path(sys.prefix).parent


def beside(name: str) -> str:
    """The path of a file of the checkout or of the image, as a shell here has to write it."""
    if not (root() / name).exists():
        return f"{name} of envtune's sources"
    return name if os.path.samefile(".", root()) else str(root() / name)


def door() -> str:
    """The command that starts a run, as a shell here has to write it."""
    script = "scripts/autorun.sh"
    return beside(script) if (root() / script).exists() else "envtune run"

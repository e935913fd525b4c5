"""Axolotl's training: python -m envtune.engine.train [--wait] CONFIG.yaml

What Axolotl's imports make is no garbage, and looking for some took a fifth of their time. So
nobody looks until the plugin is asked for the data, which sets the imports aside and lets it
begin. With --wait the imports come at once, and training when the supervisor says so on standard
input: what it has decided since is for the environment. It ends where nothing is said.
"""

import gc
import importlib
import json
import os
import runpy
import sys

from envtune.engine import later
from envtune.render.launch import WAIT

# What every training imports before its configuration has a say, in its order.
MODULES = (
    "axolotl.cli.config", "axolotl.common.datasets", "axolotl.train", "axolotl.core.builders",
    "envtune.engine.plugin", "envtune.engine.rows",
)  # fmt: skip


def begin() -> None:
    """Collects garbage from now on, of what is made from now on."""
    gc.freeze()
    gc.enable()


def _wait() -> None:
    """Imports, and returns once training is wanted."""
    for module in MODULES:
        importlib.import_module(module)
    said = sys.stdin.read()
    if not said:
        raise SystemExit(0)
    os.environ.update(json.loads(said))  # noqa: TID251  # it is for whoever reads it after


if __name__ == "__main__":
    gc.disable()
    later.put_off()
    if WAIT in sys.argv:
        sys.argv.remove(WAIT)
        _wait()
    runpy.run_module("axolotl.cli.train", run_name="__main__", alter_sys=True)

"""Axolotl's training as accelerate starts it: python -m envtune.engine.train CONFIG.yaml

What Axolotl's imports make is no garbage, and looking for some took a fifth of their time. So
nobody looks until the plugin is asked for the data, which sets the imports aside and lets it
begin.
"""

import gc
import runpy


def begin() -> None:
    """Collects garbage from now on, of what is made from now on."""
    gc.freeze()
    gc.enable()


if __name__ == "__main__":
    gc.disable()
    runpy.run_module("axolotl.cli.train", run_name="__main__", alter_sys=True)

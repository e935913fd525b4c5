#!/usr/bin/env python3
"""AXOLOTL_* and SFT_* variables -> Axolotl's YAML. The same as `envtune configure`.

usage: configure.py [--check] [--template FILE] [--output FILE] [NAME=VALUE ...]
"""

import os
import sys
from pathlib import Path

try:
    from envtune.__main__ import main
except ModuleNotFoundError:  # another Python than that of the environment beside this file
    python = Path(__file__).resolve().parents[1] / ".venv" / "bin" / "python"
    if not python.exists() or Path(sys.prefix) == python.parents[1]:
        sys.exit(f"envtune is not installed: run `make setup` in {python.parents[2]} first")
    os.execv(python, [str(python), __file__, *sys.argv[1:]])

if __name__ == "__main__":
    sys.exit(main(["configure", *sys.argv[1:]]))

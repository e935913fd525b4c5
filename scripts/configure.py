#!/usr/bin/env python3
"""AXOLOTL_* and SFT_* variables -> Axolotl's YAML. The same as `envtune configure`.

usage: configure.py [--check] [--template FILE] [--output FILE] [NAME=VALUE ...]
"""

import sys

from envtune.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["configure", *sys.argv[1:]]))

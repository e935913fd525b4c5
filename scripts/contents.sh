#!/usr/bin/env bash
# Prints what is in the image that it runs in: the system, and every package of each environment.
set -Eeuo pipefail
# shellcheck disable=SC1091
. /etc/os-release
echo "os $PRETTY_NAME"
for python in "$(dirname "$0")"/../.venv*/bin/python; do
  "$python" - <<< '
import importlib.metadata as metadata
import os
import sys

where = os.path.basename(sys.prefix).removeprefix(".venv").lstrip("-") or "train"
found = {d.name.lower(): d.version for d in metadata.distributions()}
print(where, "python", sys.version.split()[0])
print(*(f"{where} {name} {found[name]}" for name in sorted(found)), sep="\n")'
done

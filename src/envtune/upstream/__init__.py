"""Committed snapshots of upstream, read as data. `make generate` writes them."""

import functools
import json
from importlib.resources import files
from typing import Any


@functools.cache
def axolotl() -> dict[str, Any]:
    """Axolotl's settings: `version`, `required`, `fields`, `defs` (JSON schema), `reserved`."""
    text = files(__name__).joinpath("axolotl.json").read_text()
    snapshot: dict[str, Any] = json.loads(text)
    return snapshot

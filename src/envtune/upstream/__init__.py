"""Committed snapshots of upstream, read as data. `make generate` writes them."""

import functools
import json
from pathlib import Path
from typing import Any


@functools.cache
def axolotl() -> dict[str, Any]:
    """Axolotl's settings: `version`, `required`, `fields`, `defs` (JSON schema), `reserved`,
    `plugins` (by class path, with `fields` and `defs`) and `packing`, the attention
    implementations that keep packed documents apart."""
    snapshot: dict[str, Any] = json.loads((Path(__file__).parent / "axolotl.json").read_text())
    return snapshot

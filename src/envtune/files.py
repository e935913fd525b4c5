"""Writes files so that no reader ever sees half of one."""

import json
import os
import secrets
from pathlib import Path
from typing import Any


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Writes JSON aside, syncs it and moves it to its name."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n", durable=durable)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes text aside, syncs it (unless not `durable`) and moves it to its name."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with aside.open("w") as stream:
        stream.write(text)
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
    os.replace(aside, path)

"""Digests of what lies at a path: the data's bytes, the model's files.

A run's key holds them in place of the paths. Data is read whole. Weights are not: their
names, sizes, safetensors headers and a megabyte from the start, the middle and the end
stand for them, which tells any two trainings apart and costs nothing at 140 GB.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from envtune.resolve.config import RunConfig
from envtune.settings.paths import DATASETS, PATHS

_WHOLE = 16 << 20
_SAMPLE = 1 << 20


def contents(config: RunConfig) -> dict[str, str]:
    """A digest for each local path that the configuration names."""
    found = {}
    for path, whole in _paths(config):
        if os.path.exists(path):
            found[path] = digest(Path(path), whole=whole)
    return found


def _paths(config: RunConfig) -> Iterator[tuple[str, bool]]:
    plain = config.plain()
    for key in PATHS:
        if isinstance(plain.get(key), str):
            yield plain[key], False
    if config.resume_from:
        yield config.resume_from, False
    for key in DATASETS:
        for item in plain.get(key) or ():
            if isinstance(item, dict):
                yield from ((str(path), True) for path in _data_paths(item))


def _data_paths(dataset: dict[str, Any]) -> Iterator[str]:
    if dataset.get("path"):
        yield dataset["path"]
    files = dataset.get("data_files")
    yield from [files] if isinstance(files, str) else files or []


def digest(path: Path, *, whole: bool) -> str:
    """The SHA-256 of a file, or of a folder's names and files."""
    if path.is_file():
        return _file(path, whole=whole)
    total = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(path)}\0{_file(file, whole=whole)}\n".encode())
    return total.hexdigest()


def _file(path: Path, *, whole: bool) -> str:
    size = path.stat().st_size
    with path.open("rb") as stream:
        if whole or size <= _WHOLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        total = hashlib.sha256(str(size).encode())
        for start in (0, size // 2, size - _SAMPLE):
            stream.seek(start)
            total.update(stream.read(_SAMPLE))
        return total.hexdigest()

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
    return _read("axolotl")


@functools.cache
def trainer() -> dict[str, Any]:
    """transformers' TrainingArguments: `version`, and `flags` with their defaults."""
    return _read("trainer")


@functools.cache
def accelerate() -> dict[str, Any]:
    """`accelerate launch`: `version`, `flags` (JSON schema by long name), `file` (keys)."""
    return _read("accelerate")


@functools.cache
def transformers() -> dict[str, Any]:
    """Transformers: `version`, `layers` (model type -> classes that FSDP wraps)."""
    return _read("transformers")


@functools.cache
def instruct() -> dict[str, Any]:
    """Axolotl's types of question and answer: `types`, each with `columns`, `optional` and
    `prompts` (format strings, see engine.snapshots.instruct_types), and `user_defined`."""
    return _read("instruct")


@functools.cache
def vllm() -> dict[str, Any]:
    """`vllm serve`: `version`, `flags` (JSON schema by long name)."""
    return _read("vllm")


def _read(name: str) -> dict[str, Any]:
    snapshot: dict[str, Any] = json.loads((Path(__file__).parent / f"{name}.json").read_text())
    return snapshot

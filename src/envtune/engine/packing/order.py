"""What decides the order of packed batches: noted beside a checkpoint, compared before a resume."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from envtune import files
from envtune.engine.packing.plan import Plan

ORDER = "packing.json"
# Noted and not compared: the order tells whether another version draws otherwise.
_INDIFFERENT = "numpy"


class OtherOrder(ValueError):
    """A checkpoint was made with other batches than those that would go on from it."""


class RanksDiffer(RuntimeError):
    """The ranks of a training hold different rows."""


def told(planned: Plan, lengths: Any, seed: int, accumulation: int) -> dict[str, Any]:
    """All that decides it, by names that a user knows. `lengths`: of each document, tokens."""
    shape = planned.shape
    return {
        "documents": len(lengths),
        "their lengths": hashlib.sha256(np.asarray(lengths, np.int64).tobytes()).hexdigest(),
        "tokens of a row": shape.capacity,
        "rows of a batch": shape.rows,
        "sample_packing_bin_size": shape.documents,
        "processes": shape.world,
        "gradient_accumulation_steps": accumulation,
        "seed": seed,
        "order": planned.digest(seed),
        _INDIFFERENT: np.__version__,
    }


def note(order: dict[str, Any], checkpoint: Path) -> None:
    files.write_json(checkpoint / ORDER, order)


def compare_ranks(order: dict[str, Any]) -> None:
    """Raises RanksDiffer where the ranks would deal different batches."""
    if not torch.distributed.is_initialized():
        return
    others: list[dict[str, Any]] = [{}] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(others, order)
    if lines := {differing(others[0], other) for other in others} - {""}:
        raise RanksDiffer(f"the ranks hold different rows: {'; '.join(sorted(lines))}")


def compare(order: dict[str, Any], checkpoint: Path) -> None:
    """Raises OtherOrder where a checkpoint was made with another order, which is empty for rows
    that are not packed here."""
    noted = checkpoint / ORDER
    if line := differing(files.read_json(noted) if noted.exists() else {}, order):
        raise OtherOrder(f"{checkpoint}: {line}")


def differing(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What is other than before, on one line; empty where nothing is."""
    if not before and now:
        return f"it has no {ORDER}, by which its order could be told: earlier versions made none"
    if before and not now:
        return "its rows were packed and these are not"
    names = (n for n in now if n != _INDIFFERENT and before.get(n) != now[n])
    return ", ".join(f"{n}: {_shown(before.get(n))} -> {_shown(now[n])}" for n in names)


def _shown(value: Any) -> str:
    return str(value)[:8]  # of a digest, what tells two apart

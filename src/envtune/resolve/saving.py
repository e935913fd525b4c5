"""How often to log and to save."""

from collections.abc import Mapping
from typing import Any

from envtune.config import Choice, Facts

Chosen = Mapping[str, Any]


def logging_steps(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(1, "every step is in metrics.jsonl")


def saves(facts: Facts, chosen: Chosen) -> Choice | None:
    if "save_steps" in chosen or "save_strategy" in chosen:
        return None
    return Choice(4, "a killed run loses at most a quarter of an epoch")


def keep(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(3, "the newest may be damaged; the disk is not endless")


RULES = (
    ("logging_steps", logging_steps),
    ("saves_per_epoch", saves),
    ("save_total_limit", keep),
)

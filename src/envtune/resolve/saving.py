"""How often to log and to save."""

from envtune.resolve.config import Choice, Chosen, Facts

# Steps between two saves where max_steps is large.
_SAVE_EVERY = 200
# Checkpoints that stay.
KEPT = 3


def logging_steps(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(1, "every step is in metrics.jsonl")


def save_steps(facts: Facts, chosen: Chosen) -> Choice | None:
    steps = chosen.get("max_steps")
    if not steps or steps < 0 or "save_strategy" in chosen or "saves_per_epoch" in chosen:
        return None
    every = min(_SAVE_EVERY, max(1, steps // 10))
    return Choice(every, f"a killed run loses at most {every} steps")


def saves(facts: Facts, chosen: Chosen) -> Choice | None:
    if "save_steps" in chosen or "save_strategy" in chosen:
        return None
    return Choice(4, "a killed run loses at most a quarter of an epoch")


def keep(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(KEPT, "the newest may be damaged; the disk is not endless")


RULES = (
    ("logging_steps", logging_steps),
    ("save_steps", save_steps),
    ("saves_per_epoch", saves),
    ("save_total_limit", keep),
)

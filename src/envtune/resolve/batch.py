"""How long a sequence is and how many make a step."""

import math

from envtune.resolve.config import Choice, Chosen, Facts, RunConfig

_SEQUENCE = 2048
_GLOBAL = 16
_MICRO = 4


def sequence_len(facts: Facts, chosen: Chosen) -> Choice | None:
    context = facts.model.context
    if context is not None and context < _SEQUENCE:
        return Choice(context, "the model's context")
    return Choice(_SEQUENCE, "covers most instruction data")


def micro(batch_size: int | None, processes: int) -> int:
    """Sequences that go through the model at once; a part of `batch_size` where that is set."""
    return math.gcd(_MICRO, max(1, batch_size // processes)) if batch_size else _MICRO


def micro_batch(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(
        micro(chosen.get("batch_size"), _replicas(facts.parallel.world, chosen)),
        "fits small memory",
    )


def accumulation(facts: Facts, chosen: Chosen) -> Choice | None:
    wanted = chosen.get("batch_size") or _GLOBAL
    per_step = (chosen["micro_batch_size"] or 1) * _replicas(facts.parallel.world, chosen)
    return Choice(max(1, wanted // per_step), f"towards {wanted} sequences a step")


def packing(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(False, "a row is one document; true trains short ones faster")


def padding(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(False, "pad to the longest of a batch only")


def _replicas(world: int, chosen: Chosen) -> int:
    """Ranks that see different sequences: those of one tensor or context group see the same."""
    shared = [chosen.get(f"{kind}_parallel_size") or 1 for kind in ("tensor", "context")]
    return max(1, world // (shared[0] * shared[1]))


RULES = (
    ("sequence_len", sequence_len),
    ("micro_batch_size", micro_batch),
    ("gradient_accumulation_steps", accumulation),
    ("sample_packing", packing),
    ("pad_to_sequence_len", padding),
)


def batch_sum(config: RunConfig) -> str:
    """The arithmetic of a step as one line."""
    plain = config.plain()
    world = _replicas(config.parallel.world, plain)
    micro = plain.get("micro_batch_size") or 1  # Axolotl's own default
    steps = plain.get("gradient_accumulation_steps") or 1
    return f"{micro} micro x {steps} accumulation x {world} world = {micro * steps * world} global"

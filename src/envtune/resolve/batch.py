"""How long a sequence is and how many make a step."""

import math

from envtune.resolve.config import Choice, Chosen, Facts, RunConfig
from envtune.resolve.packing import why_not as not_packed
from envtune.resolve.plan import memory, reasons

_SEQUENCE = 2048
_GLOBAL = 16
_MICRO = 4
# A row's tokens are told by its text: so much is added, and rounded up to so many slots.
_SAFE, _SLOTS, _LONGEST = 1.25, 256, 32768


def sequence_len(facts: Facts, chosen: Chosen) -> Choice | None:
    context = facts.model.context
    if facts.device == "cuda" and (longest := _longest(facts)) > _SEQUENCE:
        most = min(longest, context or longest, _LONGEST)
        return Choice(most, f"99.5 % of the rows, by their text, end before about {longest}")
    if context is not None and context < _SEQUENCE:
        return Choice(context, "the model's context")
    return Choice(_SEQUENCE, "covers most instruction data")


def _longest(facts: Facts) -> int:
    """What nearly all rows do not exceed, in whole hundreds of tokens."""
    known = [data.lengths.nearly_longest for data in facts.data if data.lengths]
    return _SLOTS * math.ceil(_SAFE * max(known, default=0) / _SLOTS)


def micro(batch_size: int | None, processes: int) -> int:
    """Sequences that go through the model at once; a part of `batch_size` where that is set."""
    return math.gcd(_MICRO, max(1, batch_size // processes)) if batch_size else _MICRO


def micro_batch(facts: Facts, chosen: Chosen) -> Choice | None:
    if facts.plan:
        return Choice(facts.plan.choice.micro, reasons.of_micro(facts.plan))
    return Choice(
        micro(chosen.get("batch_size"), _replicas(facts.parallel.world, chosen)),
        "fits small memory",
    )


def accumulation(facts: Facts, chosen: Chosen) -> Choice | None:
    if facts.plan:
        return Choice(facts.plan.best.accumulation, reasons.of_accumulation(facts.plan))
    wanted = chosen.get("batch_size") or _GLOBAL
    per_step = (chosen["micro_batch_size"] or 1) * _replicas(facts.parallel.world, chosen)
    return Choice(max(1, wanted // per_step), f"towards {wanted} sequences a step")


def packing(facts: Facts, chosen: Chosen) -> Choice | None:
    if facts.plan:
        why = not_packed(chosen, facts.model.config.get("model_type"))
        return Choice(facts.plan.choice.packing, why or reasons.of_packing(facts.plan))
    return Choice(False, "a row is one document; true trains short ones faster")


def padding(facts: Facts, chosen: Chosen) -> Choice | None:
    if facts.plan and chosen.get("sample_packing"):
        return Choice(True, "each step takes the same memory")
    return Choice(False, "pad to the longest of a batch only")


def evaluated(facts: Facts, chosen: Chosen) -> Choice | None:
    """An evaluation has all logits at once: the fused loss makes them in training alone."""
    evaluates = chosen.get("val_set_size") or chosen.get("test_datasets")
    if not facts.plan or not evaluates or not chosen.get("micro_batch_size"):
        return None
    most = memory.evaluated(facts.plan.job.shape, facts.plan.choice, facts.plan.job.card)
    rows = min(most, chosen["micro_batch_size"])
    return Choice(rows, "an evaluation makes all logits at once, which have to fit")


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
    ("eval_batch_size", evaluated),
)


def batch_sum(config: RunConfig) -> str:
    """The arithmetic of a step as one line."""
    plain = config.plain()
    world = _replicas(config.parallel.world, plain)
    micro = plain.get("micro_batch_size") or 1  # Axolotl's own default
    steps = plain.get("gradient_accumulation_steps") or 1
    return f"{micro} micro x {steps} accumulation x {world} world = {micro * steps * world} global"

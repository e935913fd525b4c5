"""A plan as figures: what `envtune plan --json` prints and report.json keeps. Pure."""

from collections.abc import Mapping
from typing import Any

from envtune.resolve.plan import time
from envtune.resolve.plan.cards import GIB
from envtune.resolve.plan.choose import Candidate, Plan
from envtune.resolve.plan.memory import FULL, OFFLOAD, Choice

# Bytes of a process that has imported the engines, as was measured of a preparation.
_PROCESS = 0.97 * GIB
_HOUR = 3600


def figures(plan: Plan, usd_per_hour: float | None = None, kept: int = 3) -> dict[str, Any]:
    """Everything that a plan says, in bytes, seconds, dollars and tokens; what nobody can know is
    None. `kept`: checkpoints that stay."""
    best, job = plan.best, plan.job
    return {
        "fits": plan.fits,
        "model": {"parameters": job.shape.parameters, "trained": trained(plan)},
        "machine": {
            "gpu": job.card.name, "gpus": plan.choice.ranks, "of": job.ranks,
            "bytes": round(FULL * job.card.memory * GIB), "calibrated": job.card.calibrated,
        },
        "choice": _choice(best.choice, best.accumulation, plan.sequences),
        "memory": _memory(best),
        "host_bytes": round(_host(plan)),
        "disk": _disk(plan, kept),
        "rows": job.lengths.rows,
        "lengths": job.lengths.told,
        "tokens": plan.tokens,
        "steps": plan.steps,
        "tokens_per_step": round(best.real),
        "tokens_per_second": round(best.speed),
        "error": round(plan.error, 2),
        "seconds": None if plan.seconds is None else round(plan.seconds, 1),
        "usd": usd(plan, usd_per_hour),
        "mfu": round(mfu(plan), 4),
        "flops_per_token": time.model_flops(job.shape, plan.choice, job.rows.seen),
        "peak": plan.choice.ranks * job.card.tflops * 1e12,
        "next": None if plan.next is None else _next(plan.next, plan),
    }  # fmt: skip


def trained(plan: Plan) -> int:
    """Parameters that are trained."""
    shape = plan.job.shape
    return shape.parameters if plan.choice.full else shape.adapter(plan.choice.rank)


def usd(plan: Plan, usd_per_hour: float | None) -> float | None:
    """What the training costs on a machine of this price."""
    if usd_per_hour is None or plan.seconds is None:
        return None
    return round(plan.seconds / _HOUR * usd_per_hour, 2)


def mfu(plan: Plan) -> float:
    """The share of the GPUs' peak that goes into what a token needs, recompute left out."""
    needed = time.model_flops(plan.job.shape, plan.choice, plan.job.rows.seen)
    return plan.best.speed * needed / (plan.choice.ranks * plan.job.card.tflops * 1e12)


def _choice(choice: Choice, accumulation: int, sequences: int) -> dict[str, Any]:
    return {
        "method": choice.method, "sample_packing": choice.packing,
        "sequence_len": choice.sequence, "micro_batch_size": choice.micro,
        "gradient_accumulation_steps": accumulation, "sequences_per_step": sequences,
        "recompute": choice.recompute, "liger": choice.liger, "preset": choice.preset,
        "eight_bit_adam": choice.eight_bit_adam,
    }  # fmt: skip


def _memory(candidate: Candidate) -> dict[str, int]:
    held = candidate.memory
    parts = (
        "weights", "adapter", "optimizer", "gradients", "activations", "logits", "workspace",
        "context", "allocated", "needed",
    )  # fmt: skip
    return {name: round(getattr(held, name)) for name in parts}


def _next(candidate: Candidate, plan: Plan) -> dict[str, Any]:
    sequences = candidate.sequences * plan.replicas
    return {
        **_choice(candidate.choice, candidate.accumulation, sequences),
        "tokens_per_second": round(candidate.speed),
        "allocated": round(candidate.memory.allocated),
    }


def _host(plan: Plan) -> float:
    """The host's memory: a process a rank, the model on its way to shares, layers' inputs."""
    choice, shape = plan.choice, plan.job.shape
    shared = 2 * shape.parameters if choice.preset in ("fsdp2", "zero3") else 0
    inputs = shape.layers * choice.wide * shape.hidden * choice.tokens * choice.ranks
    return choice.ranks * _PROCESS + shared + (inputs if choice.recompute == OFFLOAD else 0)


def _disk(plan: Plan, kept: int) -> Mapping[str, int]:
    """Bytes of checkpoints, one more than stay while the newest is written, of the result, and of
    a merged model where one is asked for."""
    count, whole = trained(plan), 2 * plan.job.shape.parameters
    weights = whole if plan.choice.full else 4 * count
    states = plan.best.memory.optimizer * (
        plan.choice.ranks if plan.choice.preset == "fsdp2" else 1
    )
    return {
        "checkpoints": round((kept + 1) * (weights + states)), "result": weights, "merged": whole,
    }  # fmt: skip

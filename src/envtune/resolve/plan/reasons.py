"""Why a plan is what it is, in the words of its estimates: what was chosen, and over what. Pure."""

from envtune.resolve.plan import choose
from envtune.resolve.plan.cards import GIB
from envtune.resolve.plan.choose import Candidate, Plan
from envtune.resolve.plan.memory import FULL, OFFLOAD, RECOMPUTE, Memory


def gib(size: float) -> str:
    """Bytes as people read them."""
    return f"{size / GIB:.1f} GiB" if size < 100 * GIB else f"{size / GIB:.0f} GiB"


def rate(candidate: Candidate) -> str:
    speed = candidate.speed
    return f"{speed:,.0f} tokens/s" if speed < 1e5 else f"{speed / 1000:,.0f}k tokens/s"


def _over(plan: Plan, name: str, other: str) -> str:
    """What the best of those that differ in one thing would come to."""
    candidate = plan.others.get(name)
    if candidate is None:
        return ""
    if not candidate.memory.fits(plan.job.card):
        return f"; {other} needs {gib(candidate.memory.needed)} of {room(plan)}"
    return f"; {other} makes {rate(candidate)} in {gib(candidate.memory.allocated)}"


def room(plan: Plan) -> str:
    """What may be taken of a card."""
    return gib(FULL * plan.job.card.memory * GIB)


def _made(plan: Plan) -> str:
    return f"{rate(plan.best)} in {gib(plan.best.memory.allocated)}"


def of_packing(plan: Plan) -> str:
    if plan.choice.packing:
        others = plan.others.get("packing")
        return f"{_made(plan)}{_over(plan, 'packing', 'a row each') if others else ''}"
    packed = plan.others.get("packing")
    return f"{_made(plan)}; packing gains nothing" if packed else "packing is not possible here"


def of_micro(plan: Plan) -> str:
    other = plan.others.get("micro")
    return _made(plan) + (_over(plan, "micro", str(other.choice.micro)) if other else "")


def of_accumulation(plan: Plan) -> str:
    at_once = f"{plan.sequences} sequences a step whatever the GPUs"
    steps = plan.steps
    return f"{at_once}: {steps:,} steps" if steps and not plan.job.max_steps else at_once


def of_recompute(plan: Plan) -> str:
    if plan.choice.recompute == RECOMPUTE:
        return f"{_made(plan)}{_over(plan, 'recompute', 'without it')}"
    if plan.choice.recompute == OFFLOAD:
        return "nothing else fits: layers' inputs go to the host"
    return f"fits: {_made(plan)}{_over(plan, 'recompute', 'with it')}"


def of_layout(plan: Plan, ranks: int) -> str:
    """Why these ranks, and why copies or shares of the model."""
    used, preset = plan.choice.ranks, plan.choice.preset
    spared = ""
    if used < ranks:
        spared = f"a step has {plan.sequences} sequences, for {used} of {ranks} GPUs"
    if preset == "fsdp2":
        return f"several GPUs share the model{_over(plan, 'preset', 'a copy each')}"
    copies = f"each GPU holds a copy{_over(plan, 'preset', 'sharing it')}" if used > 1 else ""
    return "; ".join(filter(None, (spared, copies))) or "one device"


def of_rate(plan: Plan) -> str:
    """Why the learning rate is higher than a method's own."""
    return f"by the root of {plan.best.real:,.0f} tokens a step over {choose.USUAL_TOKENS:,}"


def of_memory(plan: Plan) -> str:
    """Why nothing fits, on one line."""
    held = plan.best.memory
    return f"{gib(held.needed)} needed of {room(plan)}: {components(held)}"


def components(held: Memory) -> str:
    """The parts of a GPU's memory, the largest first."""
    parts = {
        "weights": held.weights + held.adapter, "optimizer": held.optimizer,
        "gradients": held.gradients, "activations": held.activations, "logits": held.logits,
        "context": held.context + held.workspace,
    }  # fmt: skip
    ordered = sorted(parts.items(), key=lambda part: -part[1])
    return ", ".join(f"{name} {gib(size)}" for name, size in ordered[:3])

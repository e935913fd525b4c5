"""Whether what is planned fits the GPUs: told before anything starts, with ways out."""

from collections.abc import Iterator

from envtune.errors import Exit, Problem
from envtune.resolve.config import RunConfig
from envtune.resolve.plan import levers, reasons
from envtune.resolve.plan.choose import Plan
from envtune.resolve.plan.levers import Way

_METHODS = {"full": "training all weights of", "lora": "LoRA on", "qlora": "QLoRA on"}


def problems(config: RunConfig) -> Iterator[Problem]:
    """One line where no candidate fits: what it needs, of what, and what would fit."""
    plan = config.plan
    if plan is None or plan.fits or config.setting("SFT_IGNORE_MEMORY"):
        return
    found = levers.ways(plan)
    told = "; ".join(map(_told, found)) or "no machine of the table does"
    what = f"{_job(plan)} does not fit {_machine(plan)}: {reasons.of_memory(plan)}"
    yield Problem(config.axolotl["base_model"].source, f"{what}; what fits: {told}", Exit.MEMORY)


def _job(plan: Plan) -> str:
    size = plan.job.shape.parameters / 1e9
    return f"{_METHODS[plan.choice.method]} {size:.1f} billion parameters"


def _machine(plan: Plan) -> str:
    card, ranks = plan.job.card, plan.job.ranks
    return f"{ranks} x {card.name.upper()}" if ranks > 1 else f"one {card.name.upper()}"


def _told(way: Way) -> str:
    needed = reasons.gib(way.plan.best.memory.needed)
    return f"{way.text} ({needed} of {reasons.room(way.plan)})"


def warnings(config: RunConfig) -> Iterator[str]:
    """What is planned and may surprise: GPUs that are left out, experts that are not trained."""
    plan = config.plan
    if plan is None:
        return
    if not plan.fits:
        yield f"SFT_IGNORE_MEMORY: {_job(plan)} needs {reasons.of_memory(plan)}"
    elif plan.choice.ranks < plan.job.ranks:
        left, needed = plan.job.ranks - plan.choice.ranks, plan.sequences
        what = f"{left} of {plan.job.ranks} GPUs have nothing to do: a step has {needed} sequences"
        yield f"{what}, for so few rows; NPROC={plan.job.ranks} uses them, with larger steps"
    if plan.job.shape.experts and not plan.choice.full and _without_experts(config):
        yield (
            f"the model's {plan.job.shape.experts} experts are no linear layers and stay as they "
            "are; AXOLOTL_LORA_TARGET_PARAMETERS names them to train them too"
        )


def _without_experts(config: RunConfig) -> bool:
    return not config.plain().get("lora_target_parameters")

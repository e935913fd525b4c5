"""A plan as people read it, in 80 columns. Pure text."""

from collections.abc import Iterable, Iterator
from typing import Any

from envtune.columns import columns
from envtune.resolve.plan.cards import GIB
from envtune.resolve.plan.choose import Plan
from envtune.resolve.plan.told import figures, usd

_METHODS = {"full": "all weights", "lora": "LoRA", "qlora": "QLoRA"}
_RECOMPUTE = {"none": "none", "full": "each layer", "offload": "each layer, inputs on the host"}


def table(plan: Plan, usd_per_hour: float | None, kept: int) -> str:
    """Everything that a plan says."""
    told = figures(plan, usd_per_hour, kept)
    rows = [*_job(told), *_choices(told), *_memory(told), *_course(told, plan)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name.ljust(width)}  {text}".rstrip() for name, text in rows)


def summary(plan: Plan, usd_per_hour: float | None) -> str:
    """A plan on one line, for the head of a start."""
    told = figures(plan, usd_per_hour)
    choice, held = told["choice"], told["memory"]
    parts = [
        f"{_METHODS[choice['method']]} on {told['machine']['gpus']} x {plan.job.card.name.upper()}",
        f"{choice['micro_batch_size']} x {choice['sequence_len']} slots at once",
        f"{_gib(held['allocated'])} of {plan.job.card.memory:.0f} GiB",
        _speed(told),
        *([] if plan.steps is None else [f"{plan.steps:,} steps"]),
        *([] if plan.seconds is None else [f"about {duration(plan.seconds)}"]),
        *([] if told["usd"] is None else [f"${told['usd']:.2f}"]),
    ]
    return ", ".join(parts)


def _job(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    model, machine = told["model"], told["machine"]
    yield "model", f"{_count(model['parameters'])} parameters, {_count(model['trained'])} trained"
    spared = f" of {machine['of']}" if machine["of"] > machine["gpus"] else ""
    yield "machine", f"{machine['gpus']}{spared} x {machine['gpu'].upper()}"


def _choices(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    choice = told["choice"]
    layout = {"single": "", "ddp": ", a copy on each GPU", "fsdp2": ", shared by all GPUs (FSDP2)"}
    yield "method", _METHODS[choice["method"]] + layout.get(choice["preset"], "")
    packed = "packed" if choice["sample_packing"] else "a row each"
    yield "sequences", f"{choice['sequence_len']:,} slots, {packed}"
    parts = f"{choice['micro_batch_size']} micro x {choice['gradient_accumulation_steps']}"
    yield "step", f"{parts} accumulation = {choice['sequences_per_step']} sequences on all GPUs"
    liger = "Liger's kernels" if choice["liger"] else "without Liger's kernels"
    yield "recompute", f"{_RECOMPUTE[choice['recompute']]}; {liger}"


def _memory(told: dict[str, Any]) -> Iterator[tuple[str, str]]:
    held = told["memory"]
    yield "GPU memory", f"{_gib(held['needed'])} needed of {_gib(told['machine']['bytes'])}"
    for name in ("weights", "adapter", "optimizer", "gradients", "activations", "logits"):
        if held[name]:
            yield f"  {name}", _gib(held[name]).rjust(10)
    yield "  the rest", _gib(held["needed"] - held["allocated"] + held["workspace"]).rjust(10)
    yield "host memory", f"about {_gib(told['host_bytes'])}"
    disk = told["disk"]
    merged = f", {_gib(disk['merged'])} if merged" if told["choice"]["method"] != "full" else ""
    yield "disk", f"{_gib(disk['checkpoints'])} checkpoints, {_gib(disk['result'])} result{merged}"


def _course(told: dict[str, Any], plan: Plan) -> Iterator[tuple[str, str]]:
    rows = "not counted" if told["rows"] is None else f"{told['rows']:,}"
    yield "rows", f"{rows} ({told['lengths']})"
    if told["tokens"] is not None:
        yield "tokens", f"{_count(told['tokens'])} in {told['steps']:,} steps"
    yield "speed", f"{_speed(told)}, {100 * told['mfu']:.0f} % of the peak"
    if plan.seconds is not None:
        less, more = (plan.seconds * (1 + sign * plan.error) for sign in (-1, 1))
        yield "time", f"{duration(plan.seconds)} ({duration(less)} to {duration(more)})"
    if told["usd"] is not None:
        yield "price", f"${told['usd']:.2f}"
    if (other := told["next"]) is not None:
        yield "next best", f"{_differs(told['choice'], other)}: {other['tokens_per_second']:,}"
        yield "", f"tokens/s in {_gib(other['allocated'])}"
    measured = told["machine"]["calibrated"]
    yield "by", measured or "the card's data sheet alone: nothing was measured on it"


def _differs(choice: dict[str, Any], other: dict[str, Any]) -> str:
    """What another plan does otherwise, in Axolotl's words."""
    names = ("sample_packing", "micro_batch_size", "recompute", "preset")
    return ", ".join(
        f"{name} {_word(other[name])}" for name in names if other[name] != choice[name]
    )


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def fits(plans: Iterable[Plan], prices: dict[str, float]) -> str:
    """The cards that hold a job: `prices` are dollars a GPU and hour by the card's name."""
    rows = []
    for plan in plans:
        card, ranks = plan.job.card, plan.job.ranks
        price = prices.get(card.name)
        cost = usd(plan, None if price is None else price * ranks)
        hours = None if plan.seconds is None else ranks * plan.seconds / 3600
        rows.append((
            f"{ranks} x {card.name}",
            _METHODS[plan.choice.method],
            f"{_gib(plan.best.memory.needed)} of {card.memory:.0f}",
            f"{plan.best.speed:,.0f} +-{100 * plan.error:.0f} %",
            "-" if plan.seconds is None else duration(plan.seconds),
            "-" if hours is None else f"{hours:.2f}",
            "-" if cost is None else f"${cost:.2f}",
        ))  # fmt: skip
    head = ("GPUs", "method", "memory a GPU", "tokens/s", "time", "GPU h", "price")
    return columns(head, rows, None)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _speed(told: dict[str, Any]) -> str:
    return f"{told['tokens_per_second']:,} tokens/s +-{100 * told['error']:.0f} %"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:.0f} MiB"


def _count(number: int) -> str:
    for size, word in ((1e9, "billion"), (1e6, "million")):
        if number >= size:
            return f"{number / size:.2f} {word}"
    return f"{number:,}"

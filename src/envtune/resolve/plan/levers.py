"""What makes a job smaller, each with what it would need then; and ways in which a job that fits
nowhere fits after all. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, islice

from envtune.resolve.plan import cards, choose, memory
from envtune.resolve.plan.cards import Card
from envtune.resolve.plan.choose import Job, Plan
from envtune.resolve.plan.memory import NONE, OFFLOAD, RECOMPUTE, Choice, Memory
from envtune.resolve.plan.shapes import Shape

# Ways that a refusal names, of which so many are settings where any are.
WAYS, _OF_SETTINGS = 3, 2
_MICRO, _RECOMPUTE = "AXOLOTL_MICRO_BATCH_SIZE", "AXOLOTL_GRADIENT_CHECKPOINTING"
_OFFLOAD, _SEQUENCE = "AXOLOTL_ACTIVATION_OFFLOADING", "AXOLOTL_SEQUENCE_LEN"
_ADAPTER, _OPTIMIZER = "AXOLOTL_ADAPTER", "AXOLOTL_OPTIMIZER"
MACHINE = "SFT_PRETEND_GPU"
# Lengths of a sequence to which a longer one may be cut.
_SHORTER = (4096, 2048, 1024, 512)
_COUNTS, _BOTH = (1, 2, 4, 8), ("ddp", "fsdp2")


@dataclass(frozen=True)
class Lever:
    """A change of settings, and what a GPU would hold then."""

    settings: Mapping[str, str]
    choice: Choice
    memory: Memory

    @property
    def text(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.settings.items())


def levers(shape: Shape, choice: Choice, card: Card) -> tuple[Lever, ...]:
    """What makes a step smaller, what costs least first: the same training before another one."""
    held = memory.of(shape, choice, card).needed
    made = (Lever(s, c, memory.of(shape, c, card)) for s, c in _changes(choice))
    return tuple(lever for lever in made if lever.memory.needed < held)


def _changes(choice: Choice) -> Iterator[tuple[Mapping[str, str], Choice]]:
    if choice.micro > 1:
        half = choice.micro // 2
        yield {_MICRO: str(half)}, replace(choice, micro=half)
        yield {_MICRO: "1"}, replace(choice, micro=1)
    if choice.recompute == NONE:
        yield {_RECOMPUTE: "true"}, replace(choice, recompute=RECOMPUTE)
    if choice.recompute != OFFLOAD and choice.preset in ("single", "ddp"):
        offloads = {_RECOMPUTE: "true", _OFFLOAD: "hidden_states"}
        yield offloads, replace(choice, recompute=OFFLOAD)
    if choice.full and not choice.eight_bit_adam and choice.preset in ("single", "ddp"):
        yield {_OPTIMIZER: "adamw_8bit"}, replace(choice, eight_bit_adam=True)
    for length in (n for n in _SHORTER if n < choice.sequence):
        yield {_SEQUENCE: str(length)}, replace(choice, sequence=length)
    if choice.full:
        yield {_ADAPTER: "lora"}, replace(choice, method="lora", eight_bit_adam=False)
    if choice.method != "qlora" and choice.preset in ("single", "ddp"):
        yield {_ADAPTER: "qlora"}, replace(choice, method="qlora", eight_bit_adam=False)


@dataclass(frozen=True)
class Way:
    """Settings, or another machine, with which a job fits, and its plan then."""

    settings: Mapping[str, str]
    plan: Plan

    @property
    def text(self) -> str:
        if MACHINE in self.settings:
            return f"{self.plan.job.ranks} x {self.plan.job.card.name.upper()}"
        return " ".join(f"{name}={value}" for name, value in self.settings.items())


def ways(plan: Plan) -> tuple[Way, ...]:
    """Three ways in which a job that does not fit does: settings, the fewest and mildest, and
    machines, the smallest."""
    found = list(islice(_by_settings(plan.job), 2 * WAYS))
    first = {frozenset(way.settings): way for way in reversed(found)}.values()
    settings = [*reversed(first), *(way for way in found if way not in first)][:WAYS]
    machines = list(islice(_by_machines(plan.job), WAYS))
    few = settings[: max(_OF_SETTINGS, WAYS - len(machines))]
    return tuple([*few, *machines][:WAYS])


def _by_settings(job: Job) -> Iterator[Way]:
    """Single changes before several at once; of several none that holds a way found before."""
    found: list[set[tuple[str, str]]] = []
    changes = list(_of_job(job))
    for several in (some for n in (1, 2, 3) for some in combinations(changes, n)):
        names, values = zip(*several, strict=True)
        if len(set(names)) < len(names) or any(before <= set(several) for before in found):
            continue
        changed = job
        for name, value in several:
            changed = changed_by(changed, name, value)
        if (plan := choose.choose(changed)).fits:
            found.append(set(several))
            yield Way(dict(zip(names, values, strict=True)), plan)


def _of_job(job: Job) -> Iterator[tuple[str, str]]:
    """What the user could set of what is set or chosen now, the mildest first."""
    for micro in job.free.micro:
        fewer = dict.fromkeys((micro // 2, micro // 8, 1))
        yield from ((_MICRO, str(n)) for n in fewer if 0 < n < micro)
    if job.free.recompute == (NONE,):
        yield _RECOMPUTE, "true"
    if job.fixed.full and job.free.eight_bit_adam == (False,):
        yield _OPTIMIZER, "adamw_8bit"
    yield from ((_ADAPTER, "lora"),) if job.fixed.full else ()
    yield from ((_ADAPTER, "qlora"),) if job.fixed.method != "qlora" else ()
    yield from ((_SEQUENCE, str(n)) for n in _SHORTER if n < job.fixed.sequence)


def changed_by(job: Job, name: str, value: str) -> Job:
    """The job with one of these settings."""
    fixed, free = job.fixed, job.free
    if name == _MICRO:
        free = replace(free, micro=(int(value),))
    elif name == _RECOMPUTE:
        free = replace(free, recompute=(RECOMPUTE,))
    elif name == _OPTIMIZER:
        free = replace(free, eight_bit_adam=(True,))
    elif name == _SEQUENCE:
        fixed = replace(fixed, sequence=int(value))
    else:
        fixed = replace(fixed, method=value, kernels=True)
        if value == "qlora":  # which is not sharded
            presets = ("ddp" if one == "fsdp2" else one for one in free.preset)
            free = replace(free, preset=tuple(dict.fromkeys(presets)))
    return replace(job, fixed=fixed, free=free)


def _by_machines(job: Job) -> Iterator[Way]:
    """The smallest machines of the table, with as many GPUs as they are sold with."""
    offered = sorted(cards.OFFERED, key=lambda card: (card.memory, card.tflops))
    for count in _COUNTS:
        for card in offered:
            there = (job.card.name, job.ranks)
            if (card.name, count) == there or (card.memory * count <= job.card.memory * job.ranks):
                continue
            plan = choose.choose(on(job, card, count))
            if plan.fits:
                name = card.name if count == 1 else f"{card.name}x{count}"
                yield Way({MACHINE: name}, plan)


def somewhere(job: Job) -> Iterator[Plan]:
    """The smallest number of each card of the table that holds a job; in four bits where nothing
    else does and the method is envtune's choice."""
    for card in cards.OFFERED:
        for count in _COUNTS:
            there = on(job, card, count)
            plan = choose.choose(there)
            if not plan.fits and job.may_quantise:
                plan = choose.choose(changed_by(there, _ADAPTER, "qlora"))
            if plan.fits:
                yield plan
                break


def on(job: Job, card: Card, count: int) -> Job:
    """The same job on other GPUs of one machine, laid out as envtune would by itself."""
    several = ("ddp",) if job.fixed.method == "qlora" or card.capability < (8, 0) else _BOTH
    return replace(
        job,
        card=card,
        ranks=count,
        replicas=count,
        may_spare=job.accumulation is None,
        free=replace(job.free, preset=("single",) if count == 1 else several),
        fixed=replace(job.fixed, masked=job.fixed.masked or card.capability < (8, 0)),
    )

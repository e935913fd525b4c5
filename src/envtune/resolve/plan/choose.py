"""Of all ways to train a job the fastest that fits, and what it was chosen over. Pure.

What is within 3 % of the fastest counts as fast, and of those the one that takes least memory is
chosen. Changes of what is learned or of where it lies (activations on the host, an optimizer of 8
bits) are looked at only where nothing fits without them.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product

from envtune.resolve.plan import memory, time
from envtune.resolve.plan.cards import Card
from envtune.resolve.plan.memory import NONE, OFFLOAD, RECOMPUTE, Choice, Memory
from envtune.resolve.plan.rows import FILLED, Lengths
from envtune.resolve.plan.shapes import Shape

# Speeds so near each other are one: no prediction is better.
NEAR = 0.97
# How near copies of a model have to come to shares of it: no run of several GPUs was measured.
_SHARED = 0.85
# The most slots of a micro-step: more gained nothing on any card.
_MOST_SLOTS = 65536
# Optimizer's steps that a training should have, and the most and fewest sequences of one. The most
# is what 64 GPUs need to have one each.
STEPS, MOST_SEQUENCES = 300, 64
_ROWS_A_STEP = 16
# Tokens of a step for which the learning rates of the methods are usual, and how much a larger one
# raises them at most: by the root of the ratio, as Adam's noise asks for (Malladi et al. 2022).
USUAL_TOKENS, _RAISED = 32768, 2.0
_UNKNOWN = 16


@dataclass(frozen=True)
class Free:
    """What may be chosen; of what the user has set there is one value. `micro` empty: any."""

    packing: tuple[bool, ...] = (True, False)
    micro: tuple[int, ...] = ()
    recompute: tuple[str, ...] = (NONE, RECOMPUTE, OFFLOAD)
    preset: tuple[str, ...] = ("single",)
    eight_bit_adam: tuple[bool, ...] = (False, True)


@dataclass(frozen=True)
class Job:
    """A model, how it is trained, on which rows and on what. `fixed` holds what the method and the
    user have decided of a Choice. `sequences` of a step, where the user says it: of all ranks.
    `accumulation` where the user has set that. `ranks` is what there is on all nodes."""

    shape: Shape
    card: Card
    lengths: Lengths
    fixed: Choice
    free: Free = Free()
    epochs: float = 3
    max_steps: int | None = None
    sequences: int | None = None
    accumulation: int | None = None
    ranks: int = 1
    replicas: int = 1  # ranks that see different rows
    may_quantise: bool = False  # the method is envtune's choice
    may_spare: bool = False  # ranks that would have nothing to do may be left out

    @cached_property
    def rows(self) -> Lengths:
        """The rows as they are trained."""
        return self.lengths.cut(self.fixed.sequence)


@dataclass(frozen=True)
class Candidate:
    """A way to train a job: what it takes and how fast it is on all GPUs together."""

    choice: Choice
    accumulation: int
    memory: Memory
    seconds: float  # an optimizer's step
    real: float  # tokens of a step that are no padding

    @property
    def speed(self) -> float:
        """Real tokens a second of all GPUs together."""
        return self.real / self.seconds

    @property
    def each(self) -> float:
        """Real tokens a second of one GPU."""
        return self.speed / self.choice.ranks

    @property
    def sequences(self) -> int:
        """Sequences of a step of one GPU."""
        return self.choice.micro * self.accumulation


@dataclass(frozen=True)
class Plan:
    """What was chosen for a job. `others` maps what could have been chosen otherwise to the best
    candidate that does so; it may not fit."""

    job: Job
    best: Candidate
    fits: bool
    replicas: int
    others: Mapping[str, Candidate] = field(default_factory=dict)

    @property
    def choice(self) -> Choice:
        return self.best.choice

    @property
    def sequences(self) -> int:
        """Sequences of a step on all GPUs."""
        return self.best.sequences * self.replicas

    @cached_property
    def next(self) -> Candidate | None:
        """The fastest of what was not chosen and fits."""
        fitting = [other for other in self.others.values() if other.memory.fits(self.job.card)]
        return max(fitting, key=lambda other: other.speed, default=None)

    @property
    def raised(self) -> float:
        """What a method's learning rate is multiplied by."""
        return min(_RAISED, math.sqrt(max(1.0, self.best.real / USUAL_TOKENS)))

    @property
    def tokens(self) -> int | None:
        """Real tokens of the whole training."""
        if self.job.max_steps:
            return round(self.job.max_steps * self.best.real)
        known = self.job.rows.tokens
        return None if known is None else round(self.job.epochs * known)

    @property
    def steps(self) -> int | None:
        if self.job.max_steps:
            return self.job.max_steps
        return None if self.tokens is None else max(1, round(self.tokens / self.best.real))

    @property
    def seconds(self) -> float | None:
        """Of all steps; loading and saving come to it."""
        return None if self.steps is None else self.steps * self.best.seconds

    @property
    def error(self) -> float:
        """The share by which the speed may be wrong."""
        several = 0.1 if self.choice.ranks > 1 else 0.0
        unlike = 0.1 if self.job.shape.experts else 0.0
        return self.job.card.error + several + unlike


def choose(job: Job) -> Plan:
    """The plan of a job. Where nothing fits, what comes nearest to it."""
    for tier in _TIERS:
        free = _within(job.free, tier)
        found = list(_candidates(job, free)) if free else []
        fitting = [one for one in found if one.memory.fits(job.card)]
        if fitting:
            return _planned(job, _best(fitting), found)
    smallest = min(_candidates(job, job.free), key=lambda one: one.memory.needed)
    return Plan(job, smallest, False, _replicas(job, smallest.choice))


def sequences(job: Job, *, packing: bool) -> int:
    """Sequences of an optimizer's step on all GPUs, however many there are: a power of two with
    which the training has some hundred steps, of at least the tokens of 16 rows."""
    if job.sequences:
        return job.sequences
    rows = job.rows
    one = FILLED * job.fixed.sequence if packing else rows.mean
    if rows.tokens is None:
        return _UNKNOWN
    most = job.epochs * rows.tokens / STEPS / one
    least = _ROWS_A_STEP * rows.mean / one
    return _power_of_two(min(max(most, least), MOST_SEQUENCES))


def _power_of_two(number: float) -> int:
    """The power of two that is not greater, 1 at least."""
    return int(2 ** max(0, int(max(1.0, number)).bit_length() - 1))


# What a plan may have chosen otherwise, each told with its estimate.
_PARTS = ("packing", "recompute", "preset", "micro")
# What each next tier gives up: nothing, the host's memory and time, what is learned.
_TIERS: tuple[tuple[tuple[str, ...], tuple[bool, ...]], ...] = (
    ((NONE, RECOMPUTE), (False,)),
    ((NONE, RECOMPUTE, OFFLOAD), (False,)),
    ((NONE, RECOMPUTE, OFFLOAD), (False, True)),
)


def _within(free: Free, tier: tuple[tuple[str, ...], tuple[bool, ...]]) -> Free | None:
    """What a tier leaves to choose; what the user has set is in each."""
    set_ = len(free.recompute) == 1, len(free.eight_bit_adam) == 1
    recompute = free.recompute if set_[0] else tuple(r for r in free.recompute if r in tier[0])
    adam = free.eight_bit_adam if set_[1] else tuple(a for a in free.eight_bit_adam if a in tier[1])
    return replace(free, recompute=recompute, eight_bit_adam=adam) if recompute and adam else None


def _candidates(job: Job, free: Free) -> Iterator[Candidate]:
    for packing, recompute, preset, adam in product(
        free.packing, free.recompute, free.preset, free.eight_bit_adam
    ):
        if recompute == OFFLOAD and preset not in ("single", "ddp"):
            continue
        wanted = sequences(job, packing=packing)
        spare = job.may_spare and wanted < job.ranks == job.replicas and preset in ("single", "ddp")
        ranks = wanted if spare else job.ranks
        named = "single" if ranks == 1 else preset
        choice = replace(
            job.fixed, packing=packing, recompute=recompute, preset=named, ranks=ranks,
            eight_bit_adam=adam, masked=job.fixed.expanded and (job.fixed.masked or not packing),
        )  # fmt: skip
        a_rank = max(1, wanted // _replicas(job, choice))
        for micro in _micros(job, choice, a_rank):
            accumulation = job.accumulation or max(1, a_rank // micro)
            yield _candidate(job, replace(choice, micro=micro), accumulation)


def _replicas(job: Job, choice: Choice) -> int:
    """Ranks that see different rows."""
    return max(1, job.replicas * choice.ranks // job.ranks)


def _micros(job: Job, choice: Choice, a_rank: int) -> Iterator[int]:
    """Powers of two that divide a rank's sequences, and no more slots than gain anything."""
    if job.free.micro:
        yield from job.free.micro
        return
    if job.accumulation:
        a_rank = _power_of_two(a_rank / job.accumulation)
    micro = 1
    while micro <= a_rank and a_rank % micro == 0:
        if micro == 1 or micro * choice.sequence <= _MOST_SLOTS:
            yield micro
        micro *= 2


def _candidate(job: Job, choice: Choice, accumulation: int) -> Candidate:
    rows = job.rows
    if choice.packing:
        real, seen, timed = FILLED * choice.tokens, rows.seen, choice
    else:
        padded = round(rows.padded(choice.micro))
        real, seen = choice.micro * rows.mean, float(padded)
        timed = replace(choice, sequence=padded)
        choice = replace(choice, sequence=round(min(choice.sequence, rows.most)))
    seconds = time.of_step(job.shape, timed, job.card, seen, accumulation)
    held = memory.of(job.shape, choice, job.card)
    whole = real * accumulation * _replicas(job, choice)
    return Candidate(choice, accumulation, held, seconds, whole)


def _best(fitting: list[Candidate]) -> Candidate:
    """By what a GPU does in a second: ranks that are left out are no loss."""
    fastest = max(one.each for one in fitting)
    copies = [one for one in fitting if one.choice.preset != "fsdp2"]
    best = max((one.each for one in copies), default=0)
    if best >= _SHARED * fastest:  # copies of a model are simpler than shares of it
        fitting, fastest = copies, best
    near = [one for one in fitting if one.each >= NEAR * fastest]
    return min(near, key=lambda one: one.memory.needed)


def _planned(job: Job, best: Candidate, found: list[Candidate]) -> Plan:
    others = {}
    for name in _PARTS:
        unlike = [o for o in found if getattr(o.choice, name) != getattr(best.choice, name)]
        fitting = [one for one in unlike if one.memory.fits(job.card)]
        if fitting:
            others[name] = max(fitting, key=lambda one: one.speed)
        elif unlike:  # nearest to what was chosen, to say what it would need
            others[name] = max(unlike, key=lambda one: (_same(one, best, name), -one.memory.needed))
    return Plan(job, best, True, _replicas(job, best.choice), others)


def _same(one: Candidate, best: Candidate, name: str) -> int:
    return sum(
        getattr(one.choice, part) == getattr(best.choice, part) for part in _PARTS if part != name
    )

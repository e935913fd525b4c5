"""How long rows are: what packing, padding and the number of steps follow from. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

# What packing by lengths leaves unfilled: first fit decreasing fills 99.5 % at 2,048 slots and more
# (docs/measurements/2026-11-27-packing.md).
FILLED = 0.995
# Where nobody knows the rows, those of instruction data: 300 tokens on average, log-normal, a token
# sees 590. Quantiles of the middle of 32 equal parts.
_NORMAL = (
    -2.154, -1.676, -1.418, -1.229, -1.076, -0.945, -0.828, -0.720, -0.620, -0.525, -0.435, -0.347,
    -0.262, -0.178, -0.097, -0.032,
)  # fmt: skip
_MU, _SIGMA = 5.366, 0.822
# The longest of a sample is not that of all rows.
_LONGER = 1.25
# Of a sample, at steps of half a percent.
_KEPT = 201


@dataclass(frozen=True)
class Lengths:
    """`rows` of a training, None where nobody has counted; `quantiles` of their lengths in tokens,
    ascending; `told` says how they are known."""

    rows: int | None
    quantiles: tuple[int, ...]
    told: str
    seen_some: bool = True

    @cached_property
    def mean(self) -> float:
        return sum(self.quantiles) / len(self.quantiles)

    @property
    def longest(self) -> int:
        return self.quantiles[-1]

    @property
    def tokens(self) -> int | None:
        """Tokens of all rows."""
        return None if self.rows is None else round(self.rows * self.mean)

    @property
    def most(self) -> float:
        """Tokens that no row exceeds, by what is known: rows that nobody has seen have no end."""
        return _LONGER * self.longest if self.seen_some else math.inf

    @property
    def nearly_longest(self) -> int:
        """What 99.5 % of the rows do not exceed."""
        return self.quantiles[round(0.995 * (len(self.quantiles) - 1))]

    @cached_property
    def seen(self) -> float:
        """Tokens that a token sees on average: its own document's."""
        return sum(n * n for n in self.quantiles) / sum(self.quantiles)

    def padded(self, rows: int) -> float:
        """The mean length of the longest of so many rows, to which a batch is padded."""
        count, total, below = len(self.quantiles), 0.0, 0.0
        for index, length in enumerate(self.quantiles, 1):
            at_most = (index / count) ** rows
            total += length * (at_most - below)
            below = at_most
        return total

    def cut(self, sequence: int) -> "Lengths":
        """The rows as a sequence length leaves them: what is longer is cut or left out."""
        return replace(self, quantiles=tuple(min(n, sequence) for n in self.quantiles))


def of(lengths: Sequence[int], rows: int | None, told: str) -> Lengths:
    """From a sample of rows' lengths in tokens, which is not empty."""
    ordered = sorted(max(1, n) for n in lengths)
    if len(ordered) > _KEPT:
        step = (len(ordered) - 1) / (_KEPT - 1)
        ordered = [ordered[round(i * step)] for i in range(_KEPT)]
    return Lengths(rows, tuple(ordered), told)


def supposed() -> Lengths:
    """Rows that nobody has seen."""
    normal = (*_NORMAL, *(-z for z in reversed(_NORMAL)))
    found = tuple(round(math.exp(_MU + _SIGMA * z)) for z in normal)
    told = "supposed: rows of instructions, 300 tokens on average"
    return Lengths(None, found, told, seen_some=False)


def together(several: Sequence[Lengths]) -> Lengths:
    """The rows of several data sets as one."""
    if len(several) == 1:
        return several[0]
    whole = None if any(one.rows is None for one in several) else sum(o.rows or 0 for o in several)
    most = max(one.rows or 1 for one in several)
    sample: list[int] = []
    for one in several:  # each with the weight of its rows
        weight = 1 if whole is None else max(1, round(8 * (one.rows or 1) / most))
        sample += one.quantiles * weight
    return of(sample, whole, several[0].told)

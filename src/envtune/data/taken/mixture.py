"""Which data set gives the next row, where each has a weight.

After every n rows each set has given its share of n, less than one row off (Tijdeman 1980, "The
chairman assignment problem"): the j-th row of a set is asked for in a window of steps, and the one
whose window ends first is taken. In whole numbers, so that no rounding adds up.
"""

import heapq
import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import lcm

from envtune.settings.own.preparation import FIRST_EXHAUSTED


def whole(weights: Sequence[float]) -> list[int]:
    """Weights as the decimals that were typed, in whole numbers: 0.7 and 0.3 are 7 and 3."""
    exact = [Fraction(str(weight)) for weight in weights]
    size = lcm(*(one.denominator for one in exact))
    return [int(one * size) for one in exact]


def order(weights: Sequence[int], seed: int) -> Iterator[int]:
    """The number of the set that gives each row, without an end; the seed decides among equals."""
    turns = list(range(len(weights)))
    random.Random(seed).shuffle(turns)
    given, waiting = [0] * len(weights), list[tuple[int, int, int]]()
    ready = list[tuple[int, int, int]]()
    for number in range(len(weights)):
        heapq.heappush(waiting, (*_window(weights, number, 0), number))
    step = 0
    while True:
        step += 1
        while waiting and waiting[0][0] <= step:
            _, end, number = heapq.heappop(waiting)
            heapq.heappush(ready, (end, turns[number], number))
        number = heapq.heappop(ready)[-1]
        yield number
        given[number] += 1
        heapq.heappush(waiting, (*_window(weights, number, given[number]), number))


def _window(weights: Sequence[int], number: int, given: int) -> tuple[int, int]:
    """The first and the last step at which a set may give its next row."""
    parts, total, weight = max(2 * len(weights) - 2, 1), sum(weights), weights[number]
    first = -(-(given * parts + 1) * total // (parts * weight))
    last = -(-((given + 1) * parts - 1) * total // (parts * weight)) if len(weights) > 1 else first
    return first, last


def drawn(rows: Sequence[int], weights: Sequence[int], strategy: str, seed: int) -> Iterator[int]:
    """The set of each row that is trained, to the end: all_exhausted gives each row of each set at
    least once, first_exhausted each at most once. `rows` of every set, at least one each."""
    left = list(rows)
    ends = min if strategy == FIRST_EXHAUSTED else max
    for number in order(weights, seed):
        yield number
        left[number] -= 1
        if left[number] == 0 and ends(left) <= 0:
            return


def times_through(rows: Sequence[int], weights: Sequence[int]) -> list[float]:
    """How often all_exhausted goes through each set, nearly."""
    longest = max(there / weight for there, weight in zip(rows, weights, strict=True))
    return [longest * weight / there for there, weight in zip(rows, weights, strict=True)]

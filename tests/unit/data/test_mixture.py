"""Weights are shares: exact after every row, whatever the weights."""

import random
from fractions import Fraction
from itertools import islice

import pytest

from envtune.data.taken import mixture
from envtune.settings.own.preparation import ALL_EXHAUSTED, FIRST_EXHAUSTED


def test_weights_are_the_decimals_that_were_typed() -> None:
    assert mixture.whole([0.7, 0.3]) == [7, 3]
    assert mixture.whole([1, 1.0, 2]) == [1, 1, 2]
    assert mixture.whole([0.1, 1e-3, 5]) == [100, 1, 5000]


def _some(dice: random.Random) -> list[float]:
    made = dice.choice((
        lambda: dice.random() + 1e-9, lambda: dice.randint(1, 9), lambda: 10 ** dice.uniform(-4, 4),
        lambda: round(dice.uniform(0.01, 1), 2),
    ))  # fmt: skip
    return [made() for _ in range(dice.randint(1, 7))]


def test_every_beginning_holds_each_share_to_less_than_a_row(dice: random.Random) -> None:
    for _ in range(200):
        weights = mixture.whole(_some(dice))
        total, given = sum(weights), [0] * len(weights)
        most = 1 - Fraction(1, max(2 * len(weights) - 2, 1)) if len(weights) > 1 else 0
        for step, number in enumerate(islice(mixture.order(weights, dice.randrange(99)), 300), 1):
            given[number] += 1
            for had, weight in zip(given, weights, strict=True):
                assert abs(had - Fraction(weight * step, total)) <= most, (weights, step)


def test_the_seed_decides_among_equals_alone(dice: random.Random) -> None:
    weights = mixture.whole(_some(dice))
    seed = dice.randrange(99)
    first, again = (list(islice(mixture.order(weights, seed), 500)) for _ in range(2))
    assert first == again
    starts = {next(mixture.order([1, 1, 1, 1], seed)) for seed in range(40)}
    assert starts == {0, 1, 2, 3}


@pytest.mark.parametrize("strategy", [ALL_EXHAUSTED, FIRST_EXHAUSTED])
def test_a_mixture_ends_as_its_strategy_says_with_exact_shares(
    strategy: str, dice: random.Random
) -> None:
    for _ in range(200):
        weights = [dice.randint(1, 20) for _ in range(dice.randint(1, 5))]
        rows = [dice.randint(1, 40) for _ in weights]
        told = list(mixture.drawn(rows, weights, strategy, dice.randrange(99)))
        given = [told.count(number) for number in range(len(rows))]
        for had, weight in zip(given, weights, strict=True):
            assert abs(had - Fraction(weight * len(told), sum(weights))) < 1
        if strategy == ALL_EXHAUSTED:  # no row is left out, and the last one drawn was the last new
            assert all(had >= there for had, there in zip(given, rows, strict=True))
            assert given[told[-1]] == rows[told[-1]]
        else:  # no row twice
            assert all(had <= there for had, there in zip(given, rows, strict=True))
            assert given[told[-1]] == rows[told[-1]]

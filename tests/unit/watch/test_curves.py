"""What an SVG draws of points."""

import random
import re

import pytest

from envtune.watch import curves


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (12, "12"), (1234.5, "1,234"), (0.00005, "5e-5"), (-0.00025, "-2.5e-4"),
     (1.23456, "1.235"), (2.5e6, "2.5 M"), (3e9, "3 G"), (1e15, "1e+03 T")],
)  # fmt: skip
def test_a_figure_is_read_by_people(value: float, text: str) -> None:
    assert curves.number(value) == text


def test_ticks_are_round_and_within(dice: random.Random) -> None:
    for _ in range(500):
        low = dice.uniform(-1e3, 1e3) * 10 ** dice.randint(-6, 6)
        high = low + dice.random() * 10 ** dice.randint(-6, 6) + abs(low) * 1e-9 + 1e-9
        found = curves.ticks(low, high)
        room = (high - low) * 1e-6
        assert 1 <= len(found) <= 11
        assert all(low - room <= tick <= high + room for tick in found)


def test_thinning_keeps_the_ends_the_lowest_and_the_highest(dice: random.Random) -> None:
    points = [(float(n), dice.gauss(0, 1)) for n in range(100_000)]
    kept = curves.thin(points)
    assert len(kept) <= 610
    assert kept == sorted(kept)
    assert {kept[0], kept[-1]} == {points[0], points[-1]}
    by_height = [point[1] for point in kept]
    assert (min(by_height), max(by_height)) == (
        min(p[1] for p in points),
        max(p[1] for p in points),
    )


def test_nothing_to_see_is_no_chart() -> None:
    assert curves.chart("loss", "", {"training": []}) is None


@pytest.mark.parametrize("points", [[(1, 2.0)], [(1, 0.0), (2, 0.0)], [(7, -3.0), (7, 4.0)]])
def test_a_line_without_extent_is_drawn(points: list[curves.Point]) -> None:
    chart = curves.chart("loss", "", {"training": points})
    assert chart is not None
    places = [float(n) for n in re.findall(r"[-0-9.]+", chart.lines[0].d)]
    assert all(0 <= x <= curves.WIDTH for x in places[::2])
    assert all(0 <= y <= curves.HEIGHT for y in places[1::2])

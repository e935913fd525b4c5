"""Points of a run -> what an SVG draws of them. Pure.

Coordinates are those of a view box of WIDTH x HEIGHT; what lies between two points of a line that
is too long for the eye is shown by its lowest and its highest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, _TOP, _BOTTOM = 56, 10, 10, 26
_MOST = 600  # points of a line
_TICKS = 4
_HIGHEST = 1e100  # beyond it the distance of two points is no float

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A line as it is drawn: `d` of its path, and its points where they are few or `dots`."""

    name: str
    d: str
    dots: list[Point]


@dataclass(frozen=True)
class Chart:
    """A drawing: its lines, ticks as (place, label), and the last value of each line."""

    title: str
    unit: str
    lines: list[Line]
    across: list[tuple[float, str]]
    up: list[tuple[float, str]]
    last: list[tuple[str, str]]


def chart(title: str, unit: str, given: Mapping[str, Sequence[Point]]) -> Chart | None:
    """A chart of lines by their names over steps, or None where there is nothing to see."""
    shown = {name: sorted(p for p in told if abs(p[1]) < _HIGHEST) for name, told in given.items()}
    series = {name: points for name, points in shown.items() if points}
    every = [point for points in series.values() for point in points]
    if not every:
        return None
    across = _range([x for x, _ in every])
    up = _range([y for _, y in every], room=True)

    def place(point: Point) -> Point:
        x, y = (
            (point[0] - across[0]) / (across[1] - across[0]),
            (point[1] - up[0]) / (up[1] - up[0]),
        )
        inner = WIDTH - LEFT - RIGHT, HEIGHT - _TOP - _BOTTOM
        return round(LEFT + x * inner[0], 1), round(HEIGHT - _BOTTOM - y * inner[1], 1)

    return Chart(
        title,
        unit,
        [_line(name, [place(p) for p in thin(points)]) for name, points in series.items()],
        [(place((tick, up[0]))[0], number(tick)) for tick in ticks(*across, whole=True)],
        [(place((across[0], tick))[1], number(tick)) for tick in ticks(*up)],
        [(name, number(points[-1][1])) for name, points in series.items()],
    )


def _line(name: str, points: Sequence[Point]) -> Line:
    few = len(points) <= 2 or name == "evaluation"
    return Line(
        name, "M" + "L".join(f"{x:g},{y:g}" for x, y in points), list(points) if few else []
    )


def _range(values: Sequence[float], *, room: bool = False) -> tuple[float, float]:
    """From the lowest to the highest, never of no extent; with some room above and below."""
    low, high = min(values), max(values)
    more = (high - low) * 0.05 if room else 0.0
    if high == low:
        more = abs(high) * 0.1 or 1.0
    return low - more, high + more


def thin(points: Sequence[Point], most: int = _MOST) -> list[Point]:
    """At most about `most` points that show the same: the ends, and of each stretch its lowest
    and its highest, in their order."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most // 2))
    return list(dict.fromkeys([points[0], *_ends(points, size), points[-1]]))


def _ends(points: Sequence[Point], size: int) -> Iterator[Point]:
    for start in range(0, len(points), size):
        part = points[start : start + size]
        yield from sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers from `low` to `high`, about _TICKS of them; whole ones where it says so."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough)
    step = max(1.0, step) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A figure as people read it: 12,345, 1.25, 0.0005 as 5e-4, 3.2 G."""
    size = abs(value)
    for limit, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= limit:
            return f"{value / limit:.3g} {letter}"
    if size >= 1000 or value == int(value):
        return f"{value:,.0f}"
    if size < 1e-3:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    return f"{value:.4g}"


def of(steps: Mapping[int, Mapping[str, Any]], name: str, factor: float = 1.0) -> list[Point]:
    """The points of a field over the steps that tell it."""
    return [(step, event[name] * factor) for step, event in steps.items() if name in event]

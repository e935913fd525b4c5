"""A story in a few lines of a terminal. Pure text."""

from collections.abc import Iterator, Sequence

from envtune.columns import columns
from envtune.supervise.progress import span
from envtune.watch import curves, report
from envtune.watch.story import Event, Story

_BARS = "▁▂▃▄▅▆▇█"
_WARNINGS = 3


def lines(told: Story, now: float, width: int) -> Iterator[str]:
    """How a run stands at `now`, seconds since 1970, in lines of at most `width` characters."""
    word = report.state(told)
    yield _cut(f"{told.run or 'no run yet'}: {word}", width)
    yield _cut(_progress(told, now), width)
    losses = [y for _, y in curves.of(told.steps, "loss")]
    if losses:
        yield _cut(
            f"loss  {sparkline(losses, width - 24)}  {losses[0]:.3f} -> {losses[-1]:.3f}", width
        )
    if evaluated := [y for _, y in curves.of(told.evaluations, "eval_loss")]:
        yield _cut(f"eval  {sparkline(evaluated, width - 24)}  {min(evaluated):.4f} best", width)
    for event in told.warnings[-_WARNINGS:]:
        yield _cut(f"warning: {event['text']}", width)
    if told.outcome is not None:
        yield _cut(f"exit {told.outcome['exit']}: {told.outcome['text']}", width)


def _progress(told: Story, now: float) -> str:
    parts = [f"step {told.step:,} of {told.max_steps:,}"] if told.max_steps else []
    rates = [rate for _, rate in report.rates(told)][-20:]
    if rates:
        parts.append(f"{sum(rates) / len(rates):,.0f} tokens/s")
    if told.outcome is None and (seconds := left(told)):
        parts.append(f"{span(seconds)} left")
    age = max(0.0, now - told.time)
    if told.price:
        spent = told.spent + (age if told.outcome is None else 0.0)
        parts.append(f"{told.price * spent / 3600:.2f} $")
    if told.outcome is None and age > 15:
        parts.append(f"last heard of {span(age)} ago")
    return ", ".join(parts) or f"last heard of {span(age)} ago"


def left(told: Story) -> float:
    """Seconds until the last step, by the pace of the newest steps; 0 where it is not known."""
    known = [e for _, e in sorted(told.steps.items()) if "seconds" in e][-50:]
    if len(known) < 2 or told.max_steps <= told.step:
        return 0.0
    first, last = known[0], known[-1]
    pace = (last["seconds"] - first["seconds"]) / max(1, last["step"] - first["step"])
    return max(0.0, float(pace * (told.max_steps - told.step)))


def sparkline(values: Sequence[float], width: int) -> str:
    """The values as bars, the mean of each stretch where there are more than `width`."""
    width = max(8, width)
    size = max(1, -(-len(values) // width))
    means = [sum(part) / len(part) for part in _parts(values, size)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((mean - low) * scale)] for mean in means)


def _parts(values: Sequence[float], size: int) -> Iterator[Sequence[float]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _cut(line: str, width: int) -> str:
    return line if len(line) <= width else f"{line[: width - 1]}…"


def compared(told: Sequence[tuple[str, Story, Event]]) -> str:
    """The figures of runs side by side: (name, story, report.json) of each."""
    figures = [dict(report.figures(one, figures)) for _, one, figures in told]
    names = dict.fromkeys(name for one in figures for name in one)
    rows = [(name, *(one.get(name, "-") for one in figures)) for name in names]
    letters = [chr(ord("A") + n) for n in range(len(told))]
    runs = "\n".join(f"{letter}: {name}" for letter, (name, *_) in zip(letters, told, strict=True))
    return f"{runs}\n\n{columns(('', *letters), rows)}"


def differences(first: Event, second: Event) -> Iterator[tuple[str, str, str]]:
    """The settings of two resolved configurations that are not the same."""
    one, other = ({n: v for n, v, _ in report.settings(each)} for each in (first, second))
    for name in dict.fromkeys([*one, *other]):
        if one.get(name) != other.get(name):
            yield name, one.get(name, "-"), other.get(name, "-")

"""A story as Prometheus reads it. METRICS is the table that dashboards are made from, too."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from envtune import channel
from envtune.watch import report, screen
from envtune.watch.story import Story

if TYPE_CHECKING:
    from prometheus_client.core import Metric

# Every word that `state` may be: a label with a bound.
STATES = (*channel.STATES, "done", "at work")


class Row(NamedTuple):
    """A metric: its name, its kind (gauge or counter), what it means, and its value at a time in
    seconds since 1970, None where it is not known."""

    name: str
    kind: str
    meaning: str
    value: Callable[[Story, float], float | None]


def _last(name: str) -> Callable[[Story, float], float | None]:
    return lambda told, now: told.last.get(name)


def _speed(told: Story, now: float) -> float | None:
    known = list(report.rates(told))
    return known[-1][1] if known else None


METRICS: tuple[Row, ...] = (
    Row("envtune_step", "gauge", "last step that was told", lambda t, now: t.step),
    Row("envtune_steps", "gauge", "steps of the training", lambda t, now: t.max_steps),
    Row("envtune_loss", "gauge", "training loss", _last("loss")),
    Row("envtune_evaluation_loss", "gauge", "newest loss on rows that are not trained on",
        lambda t, now: t.evaluated.get("eval_loss")),
    Row("envtune_best_evaluation_loss", "gauge", "lowest of these losses",
        lambda t, now: t.best["eval_loss"] if t.best else None),
    Row("envtune_learning_rate", "gauge", "learning rate", _last("learning_rate")),
    Row("envtune_gradient_norm", "gauge", "gradient norm", _last("grad_norm")),
    Row("envtune_epoch", "gauge", "epochs that are trained", _last("epoch")),
    Row("envtune_tokens_total", "counter", "tokens trained, without padding", _last("tokens")),
    Row("envtune_training_seconds_total", "counter", "seconds in steps", _last("seconds")),
    Row("envtune_tokens_per_second", "gauge", "tokens a second, without padding", _speed),
    Row("envtune_memory_bytes", "gauge", "GPU memory, allocated", _last("memory")),
    Row("envtune_memory_reserved_bytes", "gauge", "the same, reserved", _last("memory_reserved")),
    Row("envtune_left_seconds", "gauge", "seconds to the last step", lambda t, now: screen.left(t)),
    Row("envtune_silence_seconds", "gauge", "seconds since anything was told",
        lambda t, now: max(0.0, now - t.time)),
    Row("envtune_saves_total", "counter", "checkpoints saved", lambda t, now: len(t.saves)),
    Row("envtune_save_seconds", "gauge", "seconds of the last save",
        lambda t, now: t.saved.get("seconds")),
    Row("envtune_starts_total", "counter", "starts of this run", lambda t, now: len(t.starts)),
    Row("envtune_warnings_total", "counter", "different warnings", lambda t, now: len(t.warnings)),
    Row("envtune_exit_code", "gauge", "how the last start has ended",
        lambda t, now: t.outcome["exit"] if t.outcome else None),
)  # fmt: skip


class Collector:
    """What prometheus_client asks. `story` gives what is known when it does, and the time."""

    def __init__(self, story: Callable[[], tuple[Story, float]]) -> None:
        self.story = story

    def collect(self) -> Iterator["Metric"]:
        """Every metric that has a value."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        told, now = self.story()
        for row in METRICS:
            if (value := row.value(told, now)) is None:
                continue
            family = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
            yield family(row.name, row.meaning, value=float(value))
        states = GaugeMetricFamily("envtune_state", "1 for the state that holds", labels=["state"])
        word = report.state(told)
        for state in STATES:
            states.add_metric([state], float(state == (word if word in STATES else "at work")))
        yield states


def text(story: Callable[[], tuple[Story, float]]) -> bytes:
    """The metrics in Prometheus' own format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(story))
    return generate_latest(registry)

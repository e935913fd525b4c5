"""The events of a run, put together: each step once, how far it is, and how it has ended.

A start that goes on from a checkpoint takes back the steps behind it, which it makes again.
"""

import itertools
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envtune.events import Follower

Event = Mapping[str, Any]
# Warnings and problems that are kept: a tool that repeats itself would fill the memory.
_KEPT = 100
# Steps that tell the pace.
_NEWEST = 50


@dataclass
class Story:
    """What is known of a run so far. `time` is the newest event's, in seconds since 1970; `spent`
    are the seconds of all starts.

    `state` is a phase of training, a stage's name, or empty once the start has ended. `steps` and
    `evaluations` are by their step; `rows` of `stages` by the stage's name.
    """

    run: str = ""
    machine: str = ""
    price: float | None = None
    time: float = 0.0
    spent: float = 0.0
    stage: str = ""
    phase: str = ""
    max_steps: int = 0
    starts: list[Event] = field(default_factory=list)
    steps: dict[int, Event] = field(default_factory=dict)
    evaluations: dict[int, Event] = field(default_factory=dict)
    saves: dict[int, Event] = field(default_factory=dict)
    stages: dict[str, Event] = field(default_factory=dict)
    warnings: list[Event] = field(default_factory=list)
    problems: list[Event] = field(default_factory=list)
    outcome: Event | None = None

    def feed(self, events: Iterable[Event]) -> "Story":
        """Takes further events in, in their order."""
        for event in events:
            if event["kind"] != "start":  # nobody works, or pays, between two starts
                self.spent += max(0.0, event["time"] - (self.time or event["time"]))
            self.time = event["time"]
            getattr(self, f"_{event['kind']}")(event)
        return self

    @property
    def step(self) -> int:
        return max(self.steps, default=0)

    @property
    def last(self) -> Event:
        """The newest step, or nothing."""
        return self.steps.get(self.step, {})

    @property
    def pace(self) -> float:
        """Seconds between two steps that are told, the median of the newest; 0 for none."""
        times = [event["time"] for _, event in sorted(self.steps.items())[-_NEWEST:]]
        return statistics.median(b - a for a, b in itertools.pairwise(times)) if times[1:] else 0.0

    @property
    def evaluated(self) -> Event:
        """The newest evaluation, or nothing."""
        return self.evaluations.get(max(self.evaluations, default=0), {})

    @property
    def saved(self) -> Event:
        """The newest save, or nothing."""
        return self.saves.get(max(self.saves, default=0), {})

    @property
    def best(self) -> Event | None:
        """The evaluation with the lowest loss."""
        losses = [e for e in self.evaluations.values() if "eval_loss" in e]
        return min(losses, key=lambda e: e["eval_loss"], default=None)

    def _start(self, event: Event) -> None:
        self.run, self.machine = event.get("run", ""), event.get("machine", "")
        self.price, self.outcome, self.stage, self.phase = event.get("price"), None, "", ""
        self.starts.append(event)

    def _phase(self, event: Event) -> None:
        self.phase = event.get("phase", "")
        self.max_steps = event.get("max_steps") or self.max_steps

    def _resumed(self, event: Event) -> None:
        """What lies behind the checkpoint is made again."""
        for known in (self.steps, self.evaluations, self.saves):
            for step in [step for step in known if step > event.get("step", 0)]:
                del known[step]

    def _step(self, event: Event) -> None:
        self.max_steps = event.get("max_steps") or self.max_steps
        self.steps[event["step"]] = event

    def _evaluation(self, event: Event) -> None:
        self.evaluations[event["step"]] = event

    def _save(self, event: Event) -> None:
        self.saves[event["step"]] = event

    def _stage(self, event: Event) -> None:
        self.stages[event["stage"]] = event
        self.stage = event["stage"] if event.get("state") == "begun" else ""

    def _warning(self, event: Event) -> None:
        self._keep(self.warnings, event)

    def _problem(self, event: Event) -> None:
        self._keep(self.problems, event)

    def _keep(self, told: list[Event], event: Event) -> None:
        if event.get("text") not in [one.get("text") for one in told[-_KEPT:]]:
            told.append(event)
            del told[:-_KEPT]

    def _outcome(self, event: Event) -> None:
        self.outcome, self.stage, self.phase = event, "", ""


def of(folder: Path) -> Story:
    """The story of the run in a folder, as far as it has been told."""
    return Story().feed(Follower(folder).new())

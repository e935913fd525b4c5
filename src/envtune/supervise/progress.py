"""Shows how far training is: a bar on a terminal, plain lines in a log.

What is shown comes from outcome.json and metrics.jsonl, not from the engine's output.
"""

import logging
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from envtune import channel
from envtune.runs import record

LOG = logging.getLogger("envtune")

PHASES = {
    "starting": "loading the libraries",
    "data": "reading the data",
    "model": "loading the model",
    "training": "training",
}
# Seconds between two looks at the files, and between two lines in a log.
_LOOK = 0.5
_EVERY = 5.0
_GIB = 2**30


class Progress:
    """Follows a run folder. `brought` are the steps and tokens that it did not train itself."""

    def __init__(
        self,
        run_dir: Path,
        outcome: Callable[[], channel.Outcome | None],
        brought: tuple[int, int] = (0, 0),
    ) -> None:
        self.brought_steps, self.brought_tokens = brought
        self.run_dir, self.outcome, self.looked = run_dir, outcome, 0.0
        self.phase, self.step, self.shown = "", 0, 0.0
        self.bar: Any = None
        self.compared = False
        self.terminal = sys.stderr.isatty()
        self.started = time.monotonic()

    def tick(self) -> None:
        """Looks at the files and shows what is new, at most every few seconds in a log."""
        if time.monotonic() < self.looked + _LOOK:
            return
        self.looked = time.monotonic()
        outcome = self.outcome()
        phase = outcome.state if outcome else "starting"
        if phase in PHASES and phase != self.phase:
            self._enter(phase, outcome)
        if outcome and phase == "training" and outcome.step != self.step:
            self.step = outcome.step
            self._advance(outcome)
        if self.bar is not None:
            self.bar.refresh()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _enter(self, phase: str, outcome: channel.Outcome | None) -> None:
        self.phase = phase
        self.close()
        if not self.terminal:
            LOG.info("train: %s (%.0f s)", PHASES[phase], time.monotonic() - self.started)
            return
        from tqdm import tqdm

        steps = outcome.max_steps if outcome and phase == "training" else None
        done = outcome.step if outcome else 0
        layout = None if steps else "{desc} {elapsed}"
        self.bar = tqdm(
            total=steps, initial=done, desc=PHASES[phase], unit="step", bar_format=layout,
            file=sys.stderr, dynamic_ncols=True, leave=bool(steps),
        )  # fmt: skip

    def _compare(self, outcome: channel.Outcome) -> None:
        """Once, from a start's second step on, which holds the optimizer's states: what a GPU holds
        beside what was planned."""
        measured = outcome.peak_allocated
        if self.compared or not measured or outcome.step < outcome.resumed_from + 2:
            return
        self.compared = True
        if plan := record.planned(self.run_dir):
            planned, room = plan["memory"]["allocated"], plan["machine"]["bytes"]
            LOG.info(
                "train: %.1f GiB allocated where %.1f were planned (%+.1f %%), of %.1f",
                measured / _GIB, planned / _GIB, 100 * (measured / planned - 1), room / _GIB,
            )  # fmt: skip

    def _advance(self, outcome: channel.Outcome) -> None:
        now = time.monotonic()
        last = outcome.step == outcome.max_steps
        if not self.terminal and not last and now - self.shown < _EVERY:
            return
        self.shown = now
        self._compare(outcome)
        last_line = record.last_metric(self.run_dir)
        if not last_line:
            return
        loss, seconds = last_line["loss"], max(last_line["seconds"], 1e-9)
        rate = f"{(last_line.get('tokens', 0) - self.brought_tokens) / seconds:,.0f} tokens/s"
        if (mfu := last_line.get("mfu")) is not None:
            rate += f", {100 * mfu:.0f} % of the peak"
        if self.bar is not None:
            self.bar.n = outcome.step
            self.bar.set_postfix_str(f"loss {loss:.3f}, {rate}", refresh=False)
            return
        left = (
            (outcome.max_steps - outcome.step)
            * seconds
            / max(last_line["step"] - self.brought_steps, 1)
        )
        LOG.info(
            "train: step %d/%d, loss %.4f, %s, %s left",
            outcome.step, outcome.max_steps, loss, rate, span(left),
        )  # fmt: skip


class Counted:
    """Shows those lines of a module's that count: `<module>: <what>: <n> of <all>`.

    `clock` gives seconds and only moves forward.
    """

    scale: ClassVar[dict[str, Any]] = {}

    def __init__(self, module: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.module, self.clock = module, clock
        self.bar: Any = None
        self.pattern = re.compile(rf"{module}: (.+): (\d+) of (\d+)$")
        self.terminal = sys.stderr.isatty()
        self.what, self.shown = "", 0.0

    def line(self, text: str) -> None:
        if (found := self.pattern.match(text)) is None:
            return
        what, done, total = found[1], int(found[2]), int(found[3])
        if self.terminal:
            self._draw(what, done, total)
        elif done == total or what != self.what or self.clock() > self.shown + _EVERY:
            self._say(text, what, done, total)
            self.what, self.shown = what, self.clock()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def _say(self, text: str, what: str, done: int, total: int) -> None:
        LOG.info("%s", text)

    def _draw(self, what: str, done: int, total: int) -> None:
        from tqdm import tqdm

        if what != self.what:
            self.close()
            desc = f"{self.module}: {what}"
            self.bar = tqdm(
                total=total, desc=desc, file=sys.stderr, dynamic_ncols=True, **self.scale
            )
            self.what = what
        if self.bar is not None:
            self.bar.n = done
            self.bar.refresh()


class Transferred(Counted):
    """The same where bytes are counted: how fast they come, and the time that is left."""

    scale: ClassVar[dict[str, Any]] = {"unit": "B", "unit_scale": True}

    def _say(self, text: str, what: str, done: int, total: int) -> None:
        now = self.clock()
        if what != self.what:
            self.began, self.first = now, done
        rate = (done - self.first) / max(now - self.began, 1e-9)
        left = f", {amount(rate)}/s, {span((total - done) / rate)} left" if rate else ""
        LOG.info("%s: %s: %s of %s%s", self.module, what, amount(done), amount(total), left)


class Read(Counted):
    """The same where rows are read of so many bytes: how fast, and the time that is left."""

    scale: ClassVar[dict[str, Any]] = {
        "bar_format": "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
    }

    def __init__(self, module: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(module, clock)
        self.began = clock()

    def line(self, text: str) -> None:
        if found := self.pattern.match(text):
            self.rows = int(found[1].split()[0])
            text = f"{self.module}: reading the rows: {found[2]} of {found[3]}"
        super().line(text)

    def _rate(self) -> str:
        return f"{self.rows / max(self.clock() - self.began, 1e-9):,.0f} rows/s"

    def _say(self, text: str, what: str, done: int, total: int) -> None:
        share = done / max(total, 1)
        left = (self.clock() - self.began) * (1 - share) / share if share else 0.0
        told = f", {span(left)} left" if share else ""
        LOG.info("%s: %s rows read, %s%s", self.module, f"{self.rows:,}", self._rate(), told)

    def _draw(self, what: str, done: int, total: int) -> None:
        super()._draw(what, done, total)
        if self.bar is not None:
            self.bar.set_postfix_str(self._rate())


def amount(size: float) -> str:
    """Bytes as people read them: 812 B, 4.2 MB, 15.3 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"


def span(seconds: float) -> str:
    """1:05 for minutes and seconds, 2:01:05 with hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""What the supervisor sees and says of a training while it runs."""

import logging
import time
from contextlib import suppress

from envtune import channel
from envtune.artifacts import checkpoints
from envtune.channel import FINAL, Outcome
from envtune.runs.contents import SAMPLE
from envtune.settings.own.training import WATCHDOG, WATCHDOG_SECONDS
from envtune.stages import learned
from envtune.supervise import grace, nodes, stacks
from envtune.supervise.progress import Progress
from envtune.supervise.shortage import Shortage
from envtune.supervise.stage import LOG, Context
from envtune.supervise.watchdog import Hung, Watchdog

# Seconds between two looks whether it hangs.
_GUARD = 1.0


class TrainWatcher:
    """Shows progress, keeps the log's last lines, and asks the plugin to stop.

    `owner` is the stamp of the supervisor that the outcome is for: node 0's.
    """

    def __init__(self, context: Context, owner: str) -> None:
        self.context, self.owner = context, owner
        self.shared = context.config.parallel.nodes > 1
        self.progress = Progress(
            context.run.folder, self.outcome, checkpoints.brought(context.config.resume_from)
        )
        self.tail: list[str] = []
        self.verbose = context.config.setting("SFT_LOG_LEVEL") == "DEBUG"
        self.broken = False
        self.told = self.saved = bool(nodes.rank(context))  # one node tells
        self.seen: Outcome | None = None
        factor, floor = (context.config.setting(name) for name in (WATCHDOG, WATCHDOG_SECONDS))
        self.watchdog = Watchdog(factor, floor) if factor else None
        self.guarded = time.monotonic()
        self.shortage = Shortage(context.run.folder)

    def outcome(self) -> Outcome | None:
        """The child's account, or the last one that a volume in trouble has let us read."""
        with suppress(OSError):
            self.seen = channel.read_outcome(self.context.run.folder, self.owner) or self.seen
            self._tell_rows()
            self._tell_grace()
        return self.seen

    def line(self, text: str) -> None:
        self.tail = [*self.tail[-39:], text]
        if self.verbose:
            LOG.debug("axolotl: %s", self.clean(text))

    def clean(self, text: str) -> str:
        return self.context.clean(text)

    def tick(self) -> None:
        """Hears of a stop on another node. What cannot be shown stops no training. Raises Hung."""
        stops = self.context.stops
        if self.shared and not stops.asked and channel.stop_requested(self.context.run.folder):
            stops.relay()
        try:
            self.progress.tick()
        except (OSError, ValueError, LookupError) as error:
            if not self.broken:
                LOG.warning("train: progress cannot be shown: %s", error)
            self.broken = True

        for line in self.shortage.look(self.seen):
            LOG.warning("train: %s", line)
        if self.watchdog and not stops.asked and time.monotonic() > self.guarded + _GUARD:
            self.guarded = time.monotonic()
            self._guard(self.watchdog)

    def _guard(self, watchdog: Watchdog) -> None:
        folder = self.context.run.folder
        if late := watchdog.look(self.seen, stopped=stacks.stopped(folder)):
            raise Hung(f"{late}: {self.clean(stacks.tell(folder))}")

    def _tell_grace(self) -> None:
        """Once, after the first save of this start."""
        if self.saved or self.seen is None or not self.seen.saves:
            return
        self.saved = True
        seconds = self.seen.save_seconds / self.seen.saves
        limit = self.context.config.setting("SFT_GRACE_SECONDS")
        level = logging.INFO if grace.fits(seconds, limit) else logging.WARNING
        LOG.log(level, "train: %s", grace.line(seconds, limit, self.context.environ))

    def _tell_rows(self) -> None:
        """Once, before the first step, or at the end of a training that was over before anybody
        looked; not every training has rows to tell of."""
        if self.told or self.seen is None or self.seen.state in ("starting", "data"):
            return
        self.told = self.seen.state != "model"
        if (self.context.run.folder / SAMPLE).exists():
            self.told = True
            self.progress.close()
            try:
                learned.tell(self.context)
            except (OSError, ValueError, LookupError) as error:
                LOG.warning("train: rows cannot be shown: %s", error)

    def stop(self) -> bool:
        """A training that has begun saves first; before that there is nothing to save."""
        outcome = self.outcome()
        begun = outcome is not None and outcome.state == "training"
        LOG.info("train: stopping%s", ", waiting for a checkpoint" if begun else "")
        if begun or self.shared:
            channel.request_stop(self.context.run.folder)
        return begun

    def done(self) -> bool:
        """By the account that `tick` has read: a volume is asked twice a second at most."""
        return self.seen is not None and self.seen.state in FINAL

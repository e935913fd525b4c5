"""What every stage gets and returns, and how a run ends early."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from envtune import files
from envtune.artifacts import checkpoints
from envtune.errors import Exit
from envtune.failures.failure import Failure
from envtune.redaction import redact
from envtune.resolve.config import RunConfig
from envtune.resolve.owned import CHECKPOINTS
from envtune.runs.folders import Run
from envtune.supervise.signals import StopSignals

if TYPE_CHECKING:
    from envtune.supervise.process import Begun

LOG = logging.getLogger("envtune")

# The record of a stage: `outcome` (done, stopped or failed), and `exit` and `message` where
# it is not done; the stage's own figures beside them.
StageRecord = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What every stage gets. `begun` is a trainer that imports before its stage."""

    run: Run
    config: RunConfig
    environ: Mapping[str, str]
    secrets: tuple[str, ...]
    stops: StopSignals
    begun: "Begun | None" = None

    def clean(self, text: str) -> str:
        """`text` without the secrets."""
        return redact(text, self.secrets)


@dataclass
class Ended(Exception):
    """The run ends here: the exit code and the one line that says why."""

    exit: Exit
    message: str


def explained(context: Context, failure: Failure, said: str) -> str:
    """A failure that was recognised as one line; of a full disk also what is free, since neither
    torch nor an open file names where it writes."""
    if failure.exit == Exit.DISK and " free" not in said:
        said = f"{said} ({context.run.folder}: {files.free(context.run.folder) or 0:,} bytes free)"
    return f"{failure.cause}: {said}; {failure.fix}"


def stop_exit(context: Context) -> Exit:
    """The exit code of a stop: by a limit, by hand, or by a signal."""
    if context.stops.exhausted:
        return Exit.BUDGET
    return Exit.INTERRUPTED if context.stops.interrupted else Exit.STOPPED


def stopped(context: Context, where: str) -> Ended:
    """The end of a run by a signal or a limit: 143, 130 or 7, and what is saved."""
    newest = checkpoints.newest(context.run.folder / CHECKPOINTS)
    saved = f"{newest.name} is committed" if newest else "nothing to save yet"
    if context.stops.exhausted:
        why = f"{context.stops.budget}; stopped at {where}: {saved}; raise it to go on from there"
        return Ended(Exit.BUDGET, why)
    text = f"stopped at {where}: {saved}; the next start goes on from there"
    return Ended(stop_exit(context), text)

"""What lies in a run's folder: every name that a run writes, replaces or deletes.

Whoever writes there takes the name from here. A folder that holds one of them and is no run's
is somebody else's: it is refused, so that nothing in it is ever lost. Other names may lie beside
a run and are never touched.
"""

import re
from pathlib import Path

from envtune import channel
from envtune.events import EVENTS
from envtune.resolve.owned import CHECKPOINTS
from envtune.settings.own.stages import QUANTISED

RECORD, COMPLETE, REPORT = "run.json", ".complete", "report.json"
# The same for a browser.
PAGE = "report.html"
# What run.json says once more: a disk that damages the one seldom damages both.
COPY = f"config/{RECORD}"
CARD, CONFIG, DATA, EVAL, OUT = "README.md", "config", "data", "eval", ".publish"
ADAPTER, MODEL = "adapter", "model"
# What was planned of the training, beside its configuration.
PLAN = f"{CONFIG}/plan.json"
# Rows as they are trained, with their mask, and the page of them.
# Where the rows lie that were prepared for the run.
PREPARED = f"{DATA}/prepared.json"
SAMPLE, SAMPLE_PAGE = f"{DATA}/sample.json", f"{DATA}/sample.html"
# What a run makes of its adapter: for vLLM, and for everybody.
SERVING, MERGED = "serving", "merged"
LEASE, LAUNCH, BUDGET, SERVER = "lease", "launch.json", "budget.json", "server.json"
# Which run of a tracker this one is; where trackers write that have nobody to send to.
TRACKED, STORE = "trackers.json", "mlflow.db"
_TRACKERS = (TRACKED, STORE, "mlruns", "wandb", "swanlog")

RESULTS = (ADAPTER, MODEL, SERVING, MERGED, *QUANTISED.values())
NAMES = frozenset(
    {
        RECORD, COMPLETE, REPORT, CARD, CONFIG, DATA, EVAL, OUT, CHECKPOINTS, LEASE, LAUNCH,
        BUDGET, SERVER, channel.STOP, channel.OUTCOME, channel.METRICS, EVENTS, PAGE, *RESULTS,
        channel.RANKS, channel.STACKS, *_TRACKERS,
    }
)  # fmt: skip
# Half of a folder, what had its name before, and the files in it; the starts of a container.
_BESIDE = re.compile(
    rf"\.({'|'.join(map(re.escape, RESULTS))})\.(partial|old|merging|files|files\.partial)\Z"
    r"|\.starts-[0-9a-f]{16}\.json\Z"
)


def is_ours(name: str) -> bool:
    """Whether a run writes a name in its folder."""
    return name in NAMES or bool(_BESIDE.match(name))


def in_the_way(folder: Path) -> list[str]:
    """The names in a folder that a new run would write to, in order; none where it is none.

    What cannot be listed at all is told by whoever has to write there.
    """
    try:
        return sorted(entry.name for entry in folder.iterdir() if is_ours(entry.name))
    except OSError:
        return []

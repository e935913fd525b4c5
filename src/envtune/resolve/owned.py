"""Keys that envtune owns: set by it, merged with the user's, or refused with a reason."""

from collections.abc import Mapping

from envtune.config import Value
from envtune.errors import Problem
from envtune.settings import Settings

PLUGIN = "envtune.engine.plugin.EnvtunePlugin"

# Relative to the run folder, which is the child's working directory.
CHECKPOINTS = "checkpoints"
PREPARED = "data/prepared"

_REFUSED = {
    "dataset_prepared_path": "prepared data lies in the run folder, where it cannot go stale",
    "auto_resume_from_checkpoints": "an unfinished run always resumes; SFT_RERUN=true trains anew",
    "comet_api_key": "a key in a configuration gets published with it; set COMET_API_KEY",
}


def refusals(settings: Settings) -> list[Problem]:
    """A problem for each key that the user may not set."""
    return [
        Problem(settings.axolotl[key].name, f"is envtune's to set: {reason}")
        for key, reason in _REFUSED.items()
        if key in settings.axolotl
    ]


def ours(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values that envtune sets whatever else is there."""
    theirs = values["plugins"].value if "plugins" in values else None
    return {
        "output_dir": Value(CHECKPOINTS, "envtune", "inside the run folder"),
        "dataset_prepared_path": Value(PREPARED, "envtune", "inside the run folder"),
        "plugins": Value(
            [PLUGIN, *(p for p in theirs or [] if p != PLUGIN)],
            "envtune",
            "stops, resumes and measures the run",
        ),
    }

"""Keys that envtune owns: set by it, merged with the user's, or refused with a reason."""

from collections.abc import Mapping

from envtune.errors import Problem
from envtune.resolve.config import Value
from envtune.settings import upstream
from envtune.settings.typed import Settings

PLUGIN = "envtune.engine.plugin.EnvtunePlugin"

# Relative to the run folder, which is the child's working directory.
CHECKPOINTS = "checkpoints"
PREPARED = "data/prepared"

REFUSED = {
    "comet_api_key": "a key in a configuration gets published with it; set COMET_API_KEY",
    "swanlab_api_key": "a key in a configuration gets published with it; set SWANLAB_API_KEY",
    "swanlab_lark_secret": "a secret in a configuration gets published with it",
    "swanlab_lark_webhook_url": "whoever knows this address may write to it, and a configuration "
    "gets published",
}

# What the user sets and Axolotl does not get as it is, and what becomes of it.
TAKEN = {
    "output_dir": "the folder of the run's results; Axolotl gets a folder inside",
    "resume_from_checkpoint": "the training starts there; Axolotl gets it at its start",
    "batch_size": "made of micro_batch_size, gradient_accumulation_steps and the processes",
    "plugins": "beside envtune's own and those whose keys are set",
}


def refusals(settings: Settings) -> list[Problem]:
    """A problem for each key that the user may not set."""
    return [
        Problem(settings.axolotl[key].name, f"is envtune's to set: {reason}")
        for key, reason in REFUSED.items()
        if key in settings.axolotl
    ]


def ours(values: Mapping[str, Value], output_dir: Value | None) -> dict[str, Value]:
    """The values that envtune sets whatever else is there. The user's `output_dir` is the run's
    folder, and Axolotl's own lies inside it."""
    inside = "inside the run folder"
    if output_dir is not None:
        inside += f", {output_dir.value} ({output_dir.source})"
    return {
        "output_dir": Value(CHECKPOINTS, "envtune", inside),
        "dataset_prepared_path": Value(PREPARED, "envtune", "inside the run folder"),
        "plugins": _plugins(values),
    }


def _plugins(values: Mapping[str, Value]) -> Value:
    """Ours, the user's, and Axolotl's own whose keys are set: without them it drops the keys."""
    theirs = (values["plugins"].value if "plugins" in values else None) or []
    named = {path.rsplit(".", 1)[-1] for path in theirs}
    wanted = {
        path: [key for key in plugin["fields"] if key in values and _on(values[key].value)]
        for path, plugin in upstream.axolotl()["plugins"].items()
        if path.rsplit(".", 1)[-1] not in named
    }
    added = {path: keys for path, keys in wanted.items() if keys}
    reason = "stops, resumes and measures the run"
    if added:
        reason += f"; {', '.join(keys[0] for keys in added.values())} asks for its own"
    return Value([PLUGIN, *(p for p in theirs if p != PLUGIN), *added], "envtune", reason)


def _on(value: object) -> bool:
    return value is not None and value is not False

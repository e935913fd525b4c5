"""envtune's own settings in the order in which a reader looks for them."""

from collections.abc import Iterator

from envtune.machine.certificates import CA_BUNDLE, INSECURE
from envtune.settings.own import OWN
from envtune.settings.own.place import ENDING, NETWORK
from envtune.settings.own.preparation import PREPARATION

# Read from the environment alone: they name what the other settings come from.
SOURCES = (
    "SFT_TRAINER_CONFIG_JSON_PATH", "SFT_TRAINER_CONFIG_JSON_ENV_VAR", "SFT_DATASET_CONFIG",
    "SFT_TRAINING_CONFIG", "SFT_DATA_DIRS", "SFT_TEMPLATE", "SFT_PROFILE",
)  # fmt: skip
# The same: the clients that read a document need them.
EARLY = (*SOURCES, CA_BUNDLE, INSECURE)
_GROUPS = {
    "Where the settings come from": SOURCES,
    "Folders": ("SFT_OUTPUTS_DIR", "CKPT_ROOT", "SFT_LOGS_DIR", "SFT_CACHE_DIR", "DATA_ROOT"),
    "The run's name": (
        "FORCE_RUN_NAME", "FORCE_RUN_INDEX", "SFT_RUN_COUNTER_SCOPE", "USE_LEGACY_NAMING",
        "LEGACY_RUN_NAME",
    ),
    "The preparation of the data": tuple(n for n in PREPARATION if n not in SOURCES),
    "The end of a run, and what it may cost": tuple(ENDING),
    "The network": tuple(NETWORK),
}  # fmt: skip
_REST = "The training and the machine"


def own() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each group's title and names; the last one holds all that no other does."""
    yield from _GROUPS.items()
    grouped = {name for names in _GROUPS.values() for name in names}
    yield _REST, tuple(name for name in OWN if name not in grouped)

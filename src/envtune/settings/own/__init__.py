"""envtune's own settings: their names, types, defaults and meaning.

Axolotl's settings are not here: their names and types come from the snapshot.
"""

from envtune.settings.own.place import PLACE
from envtune.settings.own.preparation import PREPARATION
from envtune.settings.own.setting import Own
from envtune.settings.own.stages import AFTER, SERVE_FLAG, SERVE_FLAGS
from envtune.settings.own.training import PLUGIN_KEYS, RUN_NAME, TRAINING

OWN: dict[str, Own] = {**TRAINING, **PREPARATION, **AFTER, **PLACE}

__all__ = ["OWN", "PLUGIN_KEYS", "RUN_NAME", "SERVE_FLAG", "SERVE_FLAGS", "Own"]

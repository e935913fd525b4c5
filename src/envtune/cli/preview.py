"""The names, folders and answers of a run, for scripts that start other things around it."""

import os
from pathlib import Path

from envtune.resolve.config import Configuration
from envtune.runs import fingerprint, folders
from envtune.serve import models
from envtune.settings.own import SERVE_FLAGS

# The stages after training that a user turns on, and by what.
_AFTER = {
    "merge": "SFT_MERGE",
    "quantise": "SFT_QUANTISE",
    "evaluate": "SFT_EVALUATE",
    "publish": "SFT_PUSH_TO",
    "serve": "SFT_SERVE",
}


def values(made: Configuration) -> dict[str, str]:
    """What the next start with this configuration is called, where it works and what it serves."""
    key = made.config.key(fingerprint.contents(made.config))
    name, folder = folders.preview(
        made.config, key, Path(made.facts.outputs), Path(made.facts.logs)
    )
    return {
        "RUN_NAME": name.name,
        "RUN_NUMBER": str(name.index),
        "RUN_NAME_PREFIX": name.prefix,
        "RUN_MODEL_SLUG": name.model,
        "RUN_DATASET_SLUG": name.dataset,
        "RUN_SIZE_SLUG": name.size,
        "RUN_DIR_NAME": folder.name,
        "RUN_OUTPUTS_DIR": str(folder),
        "RUN_LOGS_DIR": str(Path(made.facts.logs) / name.name),
        "RUN_KEY": key,
        "DEVICE": made.config.device,
        "DEBUG_PIPELINE": str(int(made.config.setting("SFT_LOG_LEVEL") == "DEBUG")),
        "TENSORBOARD_ENABLED": str(int(bool(made.config.plain().get("use_tensorboard")))),
        **_to_be_served(made, folder),
    }


def _to_be_served(made: Configuration, folder: Path) -> dict[str, str]:
    source, path = models.planned(made.config, folder)
    longest = (made.config.setting(SERVE_FLAGS) or {}).get("max_model_len")
    return {
        "SERVED_MODEL_SOURCE": source,
        "SERVED_MODEL_PATH": str(path),
        "SERVED_MODEL_RELPATH": os.path.relpath(path, folder.parent),
        "SERVED_MODEL_MAX_LEN": str(longest or ""),
        "POST_FINETUNE_TARGETS": " ".join(
            name for name in _AFTER if made.config.setting(_AFTER[name])
        ),
    }

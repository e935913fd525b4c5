"""Variables of other tools under their old names, which those tools no longer read."""

from collections.abc import Mapping

# transformers 5 and NCCL's watchdog in torch read only the new names; the others are
# deprecated and told here once, instead of by a warning of each process.
RENAMED: Mapping[str, str] = {
    "TRANSFORMERS_CACHE": "HF_HUB_CACHE",
    "PYTORCH_TRANSFORMERS_CACHE": "HF_HUB_CACHE",
    "HUGGINGFACE_HUB_CACHE": "HF_HUB_CACHE",
    "NCCL_ASYNC_ERROR_HANDLING": "TORCH_NCCL_ASYNC_ERROR_HANDLING",
    "NCCL_BLOCKING_WAIT": "TORCH_NCCL_BLOCKING_WAIT",
    "NCCL_DESYNC_DEBUG": "TORCH_NCCL_DESYNC_DEBUG",
    "PYTORCH_CUDA_ALLOC_CONF": "PYTORCH_ALLOC_CONF",
}

# The trainer's image read these of its own start; here something else stands in their place.
PASSED_OVER: Mapping[str, str] = {
    "TRAINING_SCRIPT": "Axolotl trains, and no script of the image's",
    "LAUNCH_TRAINING_SCRIPT": "Axolotl trains, and no script of the image's",
    "FSDP_DEFAULTS_FILE_PATH": "FSDP2 shards where there are several GPUs; a file of your own is "
    "config_file in SFT_ACCELERATE_LAUNCH_ARGS",
}
# Its words for how much is logged, and ours.
_LEVELS = {"DEBUG": "DEBUG", "INFO": "INFO", "WARN": "WARNING", "WARNING": "WARNING",
           "ERROR": "ERROR", "CRITICAL": "ERROR"}  # fmt: skip


def level(environ: Mapping[str, str]) -> str | None:
    """What LOG_LEVEL asks for, which many tools read; None where it is no word of ours."""
    return _LEVELS.get(environ.get("LOG_LEVEL", "").strip().upper())


def passed_over(environ: Mapping[str, str]) -> list[str]:
    """A note for each variable that only the trainer's image read."""
    return [f"{name}: {why}" for name, why in PASSED_OVER.items() if environ.get(name)]


def translated(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """`environ` under today's names, and a note for each old one. A new name that is set wins."""
    found, notes = dict(environ), []
    for old, new in RENAMED.items():
        value = found.pop(old, "")
        if value and found.get(new, value) != value:
            notes.append(f"{old} is the old name of {new}, which is set and counts")
        elif value:
            found[new] = value
            notes.append(f"{old} is an old name; it is passed on as {new}")
    return found, notes

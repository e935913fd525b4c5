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

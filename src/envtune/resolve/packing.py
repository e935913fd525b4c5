"""Which trainings may pack several rows into one sequence. Pure."""

from collections.abc import Mapping
from typing import Any

from envtune.settings import upstream

# Models whose attention, convolution or state goes over the border of packed documents: their
# masks do not know of position_ids. Measured with random ones, or read in transformers 5.16. Flash
# attention is told the borders apart from the mask, and Axolotl's kernels of states with it.
MIXING = (
    "afmoe", "biogpt", "bloom", "falcon", "falcon_h1", "gpt_oss", "granitemoehybrid", "lfm2", "mpt",
    "opt", "xglm",
)  # fmt: skip
# What Axolotl does not take beside packing, or what packing would change.
_EXCLUDING = (
    "streaming", "pretraining_dataset", "batch_flattening", "eval_table_size", "do_causal_lm_eval",
    "auto_find_batch_size", "reward_model", "process_reward_model", "rl", "processor_type",
    "group_by_length",
)  # fmt: skip


def isolating() -> list[str]:
    """The attentions that keep packed rows apart."""
    found: list[str] = upstream.axolotl()["packing"]
    return found


def is_flash(attention: object) -> bool:
    return "flash" in str(attention)


def why_not(chosen: Mapping[str, Any], kind: object) -> str:
    """Why rows are not packed by a choice of envtune's, or nothing. `kind` is the model's type."""
    attention = chosen.get("attn_implementation", "sdpa")
    if kind in MIXING and not is_flash(attention):
        return f"{kind} lets packed documents see each other but by flash attention"
    if attention not in isolating():
        return f"{attention} lets packed documents see each other"
    if name := next((key for key in _EXCLUDING if chosen.get(key)), None):
        return f"{name} goes without packing"
    if (chosen.get("context_parallel_size") or 1) > 1:
        return "rows are cut among GPUs by context_parallel_size"
    return ""

"""What Axolotl takes and nothing comes of: names that it drops, keys that envtune sees to itself.

All of it is taken, so that a configuration that Axolotl takes is, and told.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import Any

from envtune.settings.schema import Schema
from envtune.settings.sources import Inputs
from envtune.settings.spelling import synonyms
from envtune.settings.spelling.nearest import alike, slip
from envtune.settings.typed import Setting, Settings

# Keys of Axolotl's past and of those who wrote its examples: it has none of them any more and
# drops them without a word. What says the same today, where something does.
DROPPED = {
    "adam_eps": "adam_epsilon",
    "bnb_4bit_compute_dtype": "bnb_config_kwargs",
    "bnb_4bit_quant_type": "bnb_config_kwargs",
    "bnb_4bit_use_double_quant": "bnb_config_kwargs",
    "collator_pad_to_longest": "",
    "debug": "",
    "eta_min": "cosine_min_lr_ratio",
    "eval_table_max_new_tokens": "generation_max_new_tokens",
    "flash_attn_fuse_qkv": "",
    "fsdp_transformer_layer_cls_to_wrap": "fsdp_config",
    "gptq_bits": "",
    "gptq_disable_exllama": "",
    "gptq_groupsize": "",
    "gptq_model_v1": "",
    "kd_top_k_before_softmax": "",
    "kd_zscore_base_temp": "",
    "landmark_attention": "",
    "log_sweep_max_lr": "",
    "log_sweep_min_lr": "",
    "lora_bias": "",
    "lora_out_dir": "",
    "push_to_hub_model_id": "hub_model_id",
    "padding_side": "",
    "relora_anneal_steps": "jagged_restart_anneal_steps",
    "relora_steps": "jagged_restart_steps",
    "relora_warmup_steps": "jagged_restart_warmup_steps",
    "sample_packing_seq_len_multiplier": "",
    "seq_len_multiplier": "",
    "special_tokens_to_add": "special_tokens",
    "system_prompt": "",
    "test_value": "",
    "torch_dtype": "bf16",
    "wandb_log_model_checkpoints": "wandb_log_model",
    "xpos_rope": "",
}

_KEEPS = "checkpoints keep what a resume needs; the result has the model alone"
# Keys whose work envtune does itself.
OURS = {
    "auto_resume_from_checkpoints": "an unfinished run goes on unless SFT_RESUME_FROM=off",
    "dataset_prepared_path": "prepared data lies in the run folder, where it cannot go stale",
    "save_only_model": _KEEPS,
}
# What a file of Axolotl's has at its top, and no dialect.
_MARKS = {"base_model", "datasets", "pretraining_dataset"}


def dropped(name: str) -> str:
    """The line about a name that Axolotl has no longer and drops; empty for any other."""
    if name not in DROPPED:
        return ""
    today = DROPPED[name]
    return f"Axolotl has no such key and drops it{f'; it has {today}' if today else ''}"


def axolotls(inputs: Inputs) -> dict[str, set[str]]:
    """The files in Axolotl's own names, and the names at the top of each."""
    names: dict[str, set[str]] = {}
    for layer in inputs.layers:
        for entry in layer.entries:
            names.setdefault(entry.document, set()).add(entry.name)
    return {file: named for file, named in names.items() if file and named & _MARKS}


def unheard(name: str, types: Schema, beside: Set[str]) -> str:
    """The line about a name in a file of Axolotl's that it never heard of and drops.

    Empty where the name is a slip of one that it has, or another tool's word for what a file has
    to say and the names `beside` it do not.
    """
    word = synonyms.meant(name.upper())
    if word in _MARKS - beside or slip(name, types.fields):
        return ""
    today = word or alike(name, types.fields)
    return f"Axolotl has no such key and drops it{f'; did you mean {today}?' if today else ''}"


def without(settings: Settings) -> Settings:
    """`settings` without what envtune sees to itself, and safe where a value is not."""
    axolotl, notes = dict(settings.axolotl), []
    for key, why in OURS.items():
        setting = axolotl.pop(key, None)
        if setting is not None and setting.value:
            notes.append(f"{setting.name}: passed over; {why}")
    return replace(settings, axolotl=axolotl, notes=(*settings.notes, *notes))


def unread(settings: Mapping[str, Setting], types: Schema) -> Iterator[str]:
    """A line for each key that has names inside of which Axolotl knows nothing."""
    for key, setting in settings.items():
        found = _shown(types.unread(setting.value, types.fields[key]))
        if found:
            yield f"{setting.name}: Axolotl reads no {', '.join(found)} there and drops it"


def _shown(paths: Sequence[tuple[Any, ...]]) -> list[str]:
    """Each path once, whatever the index: a list may be long."""
    names = [".".join(str(p) for p in path if not isinstance(p, int)) for path in paths]
    return list(dict.fromkeys(names))

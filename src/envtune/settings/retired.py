"""Keys that Axolotl has left behind: translated where it still understands them, else refused.

One table. A test asks Axolotl itself, key by key, whether the table is right and whole.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from envtune.errors import Problem
from envtune.settings.typed import Setting, Settings

# The same value under a new name.
RENAMED = {
    "dataset_processes": "dataset_num_proc",
    "dpo_beta": "rl_beta",
    "evaluation_strategy": "eval_strategy",
    "liger_swiglu": "liger_glu_activation",
    "noisy_embedding_alpha": "neftune_noise_alpha",
    "overrides_of_model_config": "model_config",
    "overrides_of_model_kwargs": "model_kwargs",
    "pretrain_multipack_buffer_size": "streaming_multipack_buffer_size",
    "revision_of_model": "model_revision",
    "sequence_parallel_degree": "context_parallel_size",
    "type_of_model": "model_type",
}

# A flag that has become one value of another key.
FLAGS = {
    "eager_attention": ("attn_implementation", "eager"),
    "flash_attention": ("attn_implementation", "flash_attention_2"),
    "flex_attention": ("attn_implementation", "flex_attention"),
    "sage_attention": ("attn_implementation", "sage"),
    "sdp_attention": ("attn_implementation", "sdpa"),
    "xformers_attention": ("attn_implementation", "xformers"),
    "flash_attn_d512": ("large_head_attention", "auto"),
}

# What the keys of fsdp_config began with, and FSDP1's words there, which Axolotl drops.
FSDP = "fsdp_"
FSDP1 = (
    "backward_prefetch", "backward_prefetch_policy", "forward_prefetch", "ignored_modules",
    "limit_all_gathers", "sharding_strategy",
)  # fmt: skip

# Values that have become a key of their own.
_OFFLOADING = {"offload": True, "offload_disk": "disk"}

_KERNELS = "use AXOLOTL_LORA_MLP_KERNEL, _QKV_KERNEL and _O_KERNEL"
# What to do instead.
REMOVED = {
    "dpo_generate_during_eval": "unset it",
    "dpo_norm_loss": "unset it",
    "dpo_use_logits_to_keep": "unset it",
    "flash_attn_rms_norm": "use AXOLOTL_LIGER_RMS_NORM=true",
    "max_packed_sequence_len": "use AXOLOTL_SEQUENCE_LEN with AXOLOTL_SAMPLE_PACKING=true",
    "rope_scaling": "use AXOLOTL_MODEL_CONFIG='{\"rope_scaling\": ...}'",
    "rpo_alpha": "unset it",
    "s2_attention": "use AXOLOTL_CONTEXT_PARALLEL_SIZE for long sequences",
    "unsloth_cross_entropy_loss": "use AXOLOTL_CUT_CROSS_ENTROPY=true",
    "unsloth_lora_mlp": _KERNELS,
    "unsloth_lora_o": _KERNELS,
    "unsloth_lora_qkv": _KERNELS,
    "unsloth_rms_norm": "use AXOLOTL_LIGER_RMS_NORM=true",
    "unsloth_rope": "use AXOLOTL_LIGER_ROPE=true",
}

# Still taken by Axolotl, which asks for something else.
KEPT = {
    "eval_max_new_tokens": "generation_max_new_tokens",
    "eval_table_size": "generate_samples and num_generation_samples",
    "fsdp": "fsdp_config",
    "fsdp_final_state_dict_type": "fsdp_config.final_state_dict_type",
    "gemma4_fp8_nonexpert": "nonexpert_quantization",
    "gemma4_nf4_nonexpert": "nonexpert_quantization",
}


def problems(settings: Settings) -> Iterator[Problem]:
    """Keys that do nothing any more, and old names beside their new ones."""
    for key, setting in settings.axolotl.items():
        if key in REMOVED and setting.value not in (None, False):
            yield Problem(setting.name, f"was removed from Axolotl; {REMOVED[key]}")
    for old, new, value in _translations(settings):
        other = settings.axolotl.get(new)
        if other is not None and new != old and other.value not in (None, value):
            what = f"is the old name of {other.name}, which is set too; unset one of them"
            yield Problem(settings.axolotl[old].name, what)
    yield from _disagreeing(settings)


def _disagreeing(settings: Settings) -> Iterator[Problem]:
    """Two old flags that mean two values of one key."""
    first: dict[str, tuple[str, Any]] = {}
    for old, new, value in _translations(settings):
        by, before = first.setdefault(new, (old, value))
        if before != value:
            both = settings.axolotl
            yield Problem(both[old].name, f"is set and so is {both[by].name}; unset one of them")


def translated(settings: Settings) -> Settings:
    """`settings` in today's keys. Each translation is a warning; the name typed stays."""
    axolotl: dict[str, Setting] = {}
    warnings: list[str] = []
    for key, setting in settings.axolotl.items():
        meant = today(key, setting.value)
        if meant is None:
            axolotl[key] = setting
        elif meant:
            told = ", ".join(f"{new}: {_shown(value)}" for new, value in meant.items())
            warnings.append(f"{setting.name}: is deprecated; taken as {told}")
        if key in KEPT and setting.value:
            warnings.append(f"{setting.name}: is deprecated; Axolotl asks for {KEPT[key]}")
    for old, new, value in _translations(settings):
        if new not in axolotl or axolotl[new].value is None:
            axolotl[new] = replace(settings.axolotl[old], value=value)
    return replace(settings, axolotl=axolotl, warnings=(*settings.warnings, *warnings))


def today(key: str, value: Any) -> Mapping[str, Any] | None:
    """What a key of the past means in today's keys; None: it is one of today's."""
    if key in RENAMED:
        return {} if value is None else {RENAMED[key]: value}
    if key in FLAGS:
        return dict([FLAGS[key]]) if value else {}
    if key == "fsdp_config" and isinstance(value, Mapping):
        return _unprefixed(value)
    if key == "gc_steps":
        freed = {"torch_empty_cache_steps": value} if value and value > 0 else {}
        return {} if value is None else {**freed, "gc_collect_steps": value}
    if key == "gradient_checkpointing" and value in _OFFLOADING:
        return {key: True, "activation_offloading": _OFFLOADING[value]}
    return {} if key in REMOVED else None


def _unprefixed(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """FSDP's keys without the prefix that they had, or None where none has it."""
    new = {n if n == "fsdp_version" else n.removeprefix(FSDP): v for n, v in value.items()}
    return None if new.keys() == value.keys() else {"fsdp_config": new}


def _translations(settings: Settings) -> Iterator[tuple[str, str, Any]]:
    """Old key, new key and its value."""
    for old, setting in settings.axolotl.items():
        for new, value in (today(old, setting.value) or {}).items():
            yield old, new, value


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)

"""accelerate_launch_args as its users write them: what says nothing is dropped, how weights are
sharded is Axolotl's to say, and the rest goes to the launcher as it is.
"""

from collections.abc import Callable, Mapping
from typing import Any

from envtune.settings.dialects.rules import Noted, Others, Outcome, Refused
from envtune.settings.paths import is_here

ARGS = "SFT_ACCELERATE_LAUNCH_ARGS"
_IMAGES_FILE = "accelerate_fsdp_defaults.yaml"
# What `accelerate config` writes for one machine where nobody asked for more.
_USUAL: Mapping[str, Any] = {
    "main_training_function": "main", "machine_rank": 0, "rdzv_backend": "static",
    "same_network": True, "gpu_ids": "all", "compute_environment": "LOCAL_MACHINE",
}  # fmt: skip
_OFF: tuple[Any, ...] = (False, None, "", "no", "No", "NO", "false", "False", [])
_STRATEGIES: Mapping[str, Outcome] = {
    "1": {}, "FULL_SHARD": {},
    "2": {"fsdp_config.reshard_after_forward": False},
    "SHARD_GRAD_OP": {"fsdp_config.reshard_after_forward": False},
    "3": {"SFT_ACCELERATE_PRESET": "ddp"}, "NO_SHARD": {"SFT_ACCELERATE_PRESET": "ddp"},
}  # fmt: skip
# FSDP2 has them so, or has no need of them.
_FSDP2 = ("use_fsdp", "fsdp_version", "fsdp_auto_wrap_policy", "fsdp_backward_prefetch",
          "fsdp_backward_prefetch_policy", "fsdp_forward_prefetch", "fsdp_state_dict_type",
          "fsdp_cpu_ram_efficient_loading", "fsdp_sync_module_states", "fsdp_use_orig_params",
          "fsdp_transformer_layer_cls_to_wrap", "fsdp_min_num_params")  # fmt: skip


def flags(given: Mapping[str, Any], others: Others) -> list[Outcome]:
    """What of the object is Axolotl's, and what is left for the launcher."""
    made: list[Outcome] = []
    left = dict(given)
    told = []
    for name, value in given.items():
        key = str(name).replace("-", "_")
        if value in _OFF or value == _USUAL.get(key, object()):
            del left[name]
        elif key in _FSDP2:
            del left[name]
            told.append(str(name))
        elif (rule := _RULES.get(key)) and (outcome := rule(value, others)) is not None:
            del left[name]
            made.append(outcome)
    if told:
        made.append(Noted(f"{', '.join(told)}: FSDP2 shards where there are several GPUs"))
    return [*made, *([{ARGS: left}] if left or not given else [])]


def _strategy(value: Any, others: Others) -> Outcome:
    found = _STRATEGIES.get(str(value).upper())
    wanted = "fsdp_sharding_strategy: set AXOLOTL_DP_REPLICATE_SIZE and AXOLOTL_DP_SHARD_SIZE"
    return Refused(wanted) if found is None else found


def _offload(value: Any, others: Others) -> Outcome:
    return {"fsdp_config.offload_params": str(value).lower() == "true"}


def _precision(value: Any, others: Others) -> Outcome:
    """The trainer's own flags say it first."""
    said = {"bf16", "fp16", "torch_dtype"} & others.keys()
    if said or value not in ("bf16", "fp16"):
        return Noted(
            f"mixed_precision: {min(said)} counts"
            if said
            else f"mixed_precision: {value} is not followed"
        )
    return {value: True}


def _file(value: Any, others: Others) -> Outcome | None:
    """The image's own file is what FSDP2 does; any other is the launcher's to read."""
    if str(value).rsplit("/", 1)[-1] == _IMAGES_FILE and not is_here(str(value)):
        return Noted(f"config_file: {value} is the trainer's image's; FSDP2 shards as it says")
    return None


def _environment(value: Any, others: Others) -> Outcome:
    return Refused("env: every process gets the environment of this one; set the variables in it")


_RULES: Mapping[str, Callable[[Any, Others], Outcome | None]] = {
    "config_file": _file,
    "env": _environment,
    "fsdp_sharding_strategy": _strategy,
    "fsdp_offload_params": _offload,
    "mixed_precision": _precision,
}

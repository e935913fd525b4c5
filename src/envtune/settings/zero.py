"""DeepSpeed's files that Axolotl's examples name and its package does not bring.

Who follows an example has no checkout of Axolotl beside it. What each of its files says is told
by its name: the stage, bf16, what goes to the host's memory, whether it compiles.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from envtune.settings import paths
from envtune.settings.typed import Settings

KEY = "deepspeed"
_NAME = re.compile(
    r"(?:.*/)?deepspeed_configs/zero(?P<stage>[123])(?P<bf16>_bf16)?"
    r"(?P<offload>_cpuoffload_(?:all|params))?(?P<compile>_torch_compile)?\.json\Z"
)
_BATCH = ("gradient_accumulation_steps", "train_batch_size", "train_micro_batch_size_per_gpu")
_HOST = {"device": "cpu", "pin_memory": True}


def standing_in(settings: Settings) -> Settings:
    """`settings` with what such a file holds in the place of one that is not here."""
    given = settings.axolotl.get(KEY)
    path = given.value if given is not None and isinstance(given.value, str) else ""
    match = _NAME.match(path)
    if given is None or match is None or paths.is_here(path):
        return settings
    note = f"{given.name}: {path} is not here; ZeRO {match['stage']} as Axolotl's file has it"
    axolotl = {**settings.axolotl, KEY: replace(given, value=_config(match.groupdict()))}
    return replace(settings, axolotl=axolotl, notes=(*settings.notes, note))


def _config(said: Mapping[str, str | None]) -> dict[str, Any]:
    stage = int(said["stage"] or 0)
    zero: dict[str, Any] = {"stage": stage, "overlap_comm": True}
    if stage > 1:
        zero["contiguous_gradients"] = True
    if stage == 2 or said["offload"] == "_cpuoffload_all":
        zero["offload_optimizer"] = dict(_HOST) if stage == 3 else {"device": "cpu"}
    if stage == 3:
        zero |= {"stage3_gather_16bit_weights_on_model_save": True, "sub_group_size": 0}
        sizes = ("reduce_bucket_size", "stage3_prefetch_bucket_size")
        zero |= dict.fromkeys((*sizes, "stage3_param_persistence_threshold"), "auto")
    if said["offload"]:
        zero["offload_param"] = dict(_HOST)
    config: dict[str, Any] = {"zero_optimization": zero, "gradient_clipping": "auto"}
    config |= dict.fromkeys(_BATCH, "auto")
    config["bf16"] = {"enabled": True if said["bf16"] else "auto"}
    if not said["bf16"]:
        config["fp16"] = {"enabled": "auto"}
    if said["compile"]:
        config["compile"] = {"disable": False, "backend": "inductor"}
    return config

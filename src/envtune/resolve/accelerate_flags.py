"""The flags of `accelerate launch` that a user gives: which pass, which have another door.

They are typed by the snapshot. What decides how training spreads has one place, the
preset and Axolotl's keys, so that the launcher and Axolotl cannot disagree.
"""

import re
from collections.abc import Mapping
from typing import Any

from envtune.errors import Problem
from envtune.machine.rendezvous import FLAGS, named
from envtune.settings.typed import Settings

# Read by envtune, which tells accelerate in its own words.
_TAKEN = {"config_file", "num_processes", "num_machines", "main_process_ip", "main_process_port"}

_REFUSED = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (r"module|no_python|env|main_training_function", "envtune starts Axolotl itself"),
        (r"machine_rank", "it differs from node to node; set NODE_RANK"),
        (r"cpu", "accelerate would train in one process; set SFT_DEVICE=cpu and NPROC"),
        (r"gpu_ids", "set CUDA_VISIBLE_DEVICES"),
        (r"max_restarts", "a rank started anew would repeat steps; start envtune again instead"),
        (r"multi_gpu|use_(fsdp|deepspeed)", "set SFT_ACCELERATE_PRESET"),
        (r"fsdp_(?P<key>\w+)", "set AXOLOTL_FSDP_CONFIG__{key}"),
        (r"mixed_precision|downcast_bf16", "set AXOLOTL_BF16 or AXOLOTL_FP16"),
        (r"(?P<key>gradient_accumulation_steps)", "set AXOLOTL_{key}"),
        (r"zero\w*|offload_\w+|gradient_clipping|deepspeed_\w+",
         "set SFT_ACCELERATE_PRESET=zero2 or zero3, or AXOLOTL_DEEPSPEED for a file of your own"),
        (r"dynamo_\w+", "set AXOLOTL_TORCH_COMPILE and AXOLOTL_TORCH_COMPILE_BACKEND"),
        (r"(use_parallelism_config|parallelism_config_\w+)",
         "set AXOLOTL_TENSOR_PARALLEL_SIZE, AXOLOTL_CONTEXT_PARALLEL_SIZE, AXOLOTL_DP_SHARD_SIZE"),
        (r"fp8_\w+", "set AXOLOTL_FP8"),
        (r"aws_\w+", "a key on a command line can be read by everybody"),
        (r"(no_)?tpu\w*|vm|mpirun_\w+|\w*megatron_lm\w*", "Axolotl has no such training"),
    )
)  # fmt: skip


def given(settings: Settings) -> dict[str, Any]:
    """The user's flags by their names with underscores."""
    return named(settings.get(FLAGS))


def refusals(settings: Settings) -> list[Problem]:
    """A problem for each flag that has another door or that would break."""
    problems = []
    for name in given(settings):
        for pattern, reason in _REFUSED:
            if match := pattern.fullmatch(name):
                why = reason.format(**{k: v.upper() for k, v in match.groupdict().items() if v})
                problems.append(Problem(FLAGS, f"{name} is not taken: {why}"))
                break
    return problems


def argv(flags: Mapping[str, Any]) -> list[str]:
    """What `accelerate launch` gets of them: `--name value`, or `--name` for a switch."""
    words = []
    for name, value in named(flags).items():
        if name in _TAKEN or value is False:
            continue
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return words

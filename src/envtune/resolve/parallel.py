"""How training spreads: ranks, nodes, the preset, and the keys that Axolotl needs for it.

What the user says wins: a number of processes, a preset, an accelerate file of his own, or
Axolotl's keys for sharding. Else each visible GPU gets a process, and several GPUs FSDP2, or what
the plan says of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from envtune.errors import Problem
from envtune.machine.hardware import Machine
from envtune.machine.rendezvous import FLAGS, Rendezvous
from envtune.resolve.config import Facts, Parallel, Value
from envtune.resolve.plan import reasons
from envtune.settings import upstream
from envtune.settings.typed import Settings

PRESET = "SFT_ACCELERATE_PRESET"
ZERO = ("zero2", "zero3")
_SHARDED = ("fsdp2", *ZERO)
_AMPERE = (8, 0)
# Optimizers whose kernels fail on what FSDP2 shards: Axolotl refuses the two together, and the
# last one without FSDP1's use_orig_params.
_NOT_SHARDED = ("adamw_8bit", "adamw_bnb_8bit", "q_galore_adamw8bit")

# Axolotl's keys that shard by themselves, and those of a base model in few bits.
_BY_AXOLOTL = ("deepspeed", "fsdp")
_QUANTISED = ("load_in_4bit", "load_in_8bit")

# `distributed_type` of an accelerate file -> the preset that it means.
_BY_TYPE = {"NO": "single", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp2"}

# Reasons of a layout that nobody has asked for: the plan may choose another.
_SHARED_BY_ALL, _QUANTISED_EACH = (
    "several GPUs share the model",
    "each GPU holds the quantised model",
)

Decided = tuple[Parallel, list[Problem]]


def decide(
    settings: Settings,
    machine: Machine,
    device: str,
    where: Rendezvous,
    base: Mapping[str, Any] | None = None,
) -> Decided:
    """The layout for these settings on this machine, and what is wrong with it.

    `base` is the user's accelerate file, or None.
    """
    file = base or {}
    local, why = _local(settings, machine, device, where, file)
    world = local * where.nodes
    preset, reason = _preset(settings, machine, device, world, file)
    problems = [
        *_file_problems(file),
        *_count_problems(machine, device, local, why),
        *_preset_problems(settings, device, world, preset),
    ]
    return Parallel(preset, local, where.nodes, reason or why, file), problems


def _local(
    settings: Settings,
    machine: Machine,
    device: str,
    where: Rendezvous,
    file: Mapping[str, Any],
) -> tuple[int, str]:
    """Ranks on each node, and who says so."""
    if where.local:
        return where.local, "NPROC"
    if where.world:
        return where.world // where.nodes, "the number of processes that was set"
    if settings.get(PRESET) == "single":
        return 1, PRESET
    gpus = len(machine.gpus) if device == "cuda" else 0
    if gpus and settings.get("SET_NUM_PROCESSES_TO_NUM_GPUS"):
        return gpus, "one process a visible GPU"
    written = file.get("num_processes")
    if isinstance(written, int) and written > 0:
        return max(1, written // where.nodes), f"{FLAGS}: config_file"
    return 1, "one device"


def _preset(
    settings: Settings, machine: Machine, device: str, world: int, file: Mapping[str, Any]
) -> tuple[str, str]:
    """The preset and its reason; the reason is empty where the number of ranks is one."""
    asked = settings.get(PRESET)
    if asked != "auto":
        return asked, PRESET
    if world == 1:
        return "single", ""
    if device == "cpu":
        return "ddp", "sharding needs GPUs"
    if file:
        return _of_file(file), f"{FLAGS}: config_file"
    if set_ := _own_sharding(settings):
        return "ddp", f"{set_} is set: Axolotl shards"
    if why := _not_sharded({key: s.value for key, s in settings.axolotl.items()}, machine):
        return "ddp", why
    return "fsdp2", _SHARED_BY_ALL


def _not_sharded(plain: Mapping[str, Any], machine: Machine) -> str:
    """Why FSDP2 does not go with what is set, or nothing."""
    if plain.get("adapter") == "qlora" or any(plain.get(key) for key in _QUANTISED):
        return _QUANTISED_EACH
    if plain.get("optimizer") in _NOT_SHARDED:
        return f"FSDP2 does not go with {plain['optimizer']}"
    if plain.get("relora"):
        return "FSDP2 does not go with ReLoRA"
    if machine.gpus[0].capability < _AMPERE or plain.get("fp16") or plain.get("bf16") is False:
        return "FSDP2 is for bf16"
    return ""


def presets(chosen: Mapping[str, Any], facts: Facts) -> tuple[str, ...]:
    """The presets that the plan may choose of."""
    layout = facts.parallel
    if layout.world == 1 or layout.reason != _SHARED_BY_ALL:
        return (layout.preset,)
    return ("ddp",) if chosen.get("adapter") == "qlora" else ("ddp", "fsdp2")


def may_spare(facts: Facts) -> bool:
    """Whether nobody has said how many ranks there are: one a visible GPU is envtune's choice."""
    layout, where = facts.parallel, facts.where
    said = where.local or where.world or layout.nodes > 1 or layout.base
    return not said and layout.reason in (_SHARED_BY_ALL, _QUANTISED_EACH)


def planned(facts: Facts) -> Parallel:
    """The layout as the plan has it."""
    layout, plan = facts.parallel, facts.plan
    if plan is None or (plan.choice.preset, plan.choice.ranks) == (layout.preset, layout.world):
        return layout
    return replace(
        layout,
        preset=plan.choice.preset,
        local=plan.choice.ranks // layout.nodes,
        reason=reasons.of_layout(plan, layout.world),
    )


def _of_file(file: Mapping[str, Any]) -> str:
    kind = str(file.get("distributed_type"))
    if kind == "DEEPSPEED":
        stage = (file.get("deepspeed_config") or {}).get("zero_stage", 2)
        return "zero3" if stage == 3 else "zero2"
    return _BY_TYPE.get(kind, "ddp")


def _own_sharding(settings: Settings) -> str | None:
    """The variable by which the user lets Axolotl shard in another way than FSDP2."""
    for key in _BY_AXOLOTL:
        if key in settings.axolotl and settings.axolotl[key].value:
            return settings.axolotl[key].name
    version = settings.axolotl.get("fsdp_version")
    return version.name if version is not None and version.value != 2 else None


def _count_problems(machine: Machine, device: str, local: int, why: str) -> Iterator[Problem]:
    if device == "cuda" and machine.gpus and local > len(machine.gpus):
        yield Problem(
            "NPROC",
            f"{local} processes need as many GPUs and {len(machine.gpus)} are visible ({why}); "
            "correct NPROC, WORLD_SIZE or num_processes, or unset them",
        )


def _preset_problems(settings: Settings, device: str, world: int, preset: str) -> Iterator[Problem]:
    if preset == "single" and world > 1:
        yield Problem(PRESET, f"single is one process and {world} are asked for; use ddp")
    elif preset != "single" and world == 1:
        yield Problem(PRESET, f"{preset} needs two processes or more and there is one; unset it")
    if preset in _SHARDED and device == "cpu":
        yield Problem(PRESET, f"{preset} needs GPUs; on the CPU use ddp")
    other = _own_sharding(settings)
    if preset in _SHARDED and other:
        yield Problem(other, f"shards in its own way and {PRESET} is {preset}; unset one of them")
    if preset in ZERO and "fsdp_config" in settings.axolotl:
        name = settings.axolotl["fsdp_config"].name
        yield Problem(name, f"is FSDP's and {PRESET} is {preset}; unset one of them")


def _file_problems(file: Mapping[str, Any]) -> Iterator[Problem]:
    """What accelerate's own loader would refuse, and what trains nothing here."""
    known = upstream.accelerate()["file"]
    name = f"{FLAGS}: config_file"
    if unknown := sorted(set(file) - {*known, "fp16", "dynamo_backend"}):
        yield Problem(name, f"accelerate knows no key {', '.join(unknown)}")
    if not file:
        return
    kinds = (*_BY_TYPE, "DEEPSPEED")
    if file.get("distributed_type") not in kinds:
        what = f"its distributed_type is {file.get('distributed_type')!r}"
        yield Problem(name, f"{what}; allowed: one of {', '.join(kinds)}")
    if file.get("compute_environment", "LOCAL_MACHINE") != "LOCAL_MACHINE":
        yield Problem(name, "its compute_environment is not LOCAL_MACHINE")


def with_keys(values: dict[str, Value], facts: Facts) -> dict[str, Value]:
    """`values` with what Axolotl needs for the preset; the user's keys stay as they are."""
    layout = facts.parallel
    if layout.preset in ZERO:
        path = Value(f"config/{layout.preset}.json", "envtune", layout.reason)
        return {"deepspeed": path, **values}
    if layout.preset != "fsdp2":
        return values
    theirs = values.get("fsdp_config")
    merged = {**_fsdp(values, facts), **((theirs.value if theirs else None) or {})}
    source = theirs.source if theirs else "envtune"
    reason = "over envtune's keys for FSDP2" if theirs else "whole weights at the end"
    return {
        "fsdp_version": Value(2, "envtune", layout.reason),
        **values,
        "fsdp_config": Value(merged, source, reason),
    }


def _fsdp(values: Mapping[str, Value], facts: Facts) -> dict[str, Any]:
    """Axolotl's `fsdp_config`. Checkpoints are sharded: accelerate 1.13 writes only rank 0's
    slice of a LoRA adapter into a full one (huggingface/accelerate#4206)."""
    whole = (*_QUANTISED, "model_quantization_config")  # Axolotl refuses Mxfp4 with it
    quantised = any(values[key].value for key in whole if key in values)
    config: dict[str, Any] = {
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "state_dict_type": "SHARDED_STATE_DICT",
        "final_state_dict_type": "FULL_STATE_DICT",
        "reshard_after_forward": True,
        "offload_params": False,
        # Axolotl's quantised weights exist on rank 0 alone with it.
        "cpu_ram_efficient_loading": not quantised,
    }
    kind = facts.model.config.get("model_type")
    if layer := upstream.transformers()["layers"].get(kind):
        config["transformer_layer_cls_to_wrap"] = layer
    return config

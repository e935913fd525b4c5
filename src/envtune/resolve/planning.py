"""Settings and facts -> the plan: what of a job is open, and what the planner says of it. Pure.

There is no plan for a CPU, for RL and vision, where the model's config.json is not known, and for
methods that the formulas do not cover: then the defaults that fit first hold.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from envtune.resolve import packing, parallel
from envtune.resolve.config import Facts, Value
from envtune.resolve.plan import cards, choose, shapes
from envtune.resolve.plan import rows as plan_rows
from envtune.resolve.plan.choose import Free, Job, Plan
from envtune.resolve.plan.memory import NONE, OFFLOAD, RECOMPUTE, Choice
from envtune.resolve.plan.rows import Lengths

# Models for which Liger 0.8.1 has all four of these kernels.
_LIGER_MODELS = (
    "gemma", "gemma2", "gemma3_text", "llama", "ministral", "mistral", "mixtral", "olmo2", "phi3",
    "qwen2", "qwen3", "qwen3_moe", "smollm3",
)  # fmt: skip
LIGER = (
    "liger_rope", "liger_rms_norm", "liger_glu_activation", "liger_fused_linear_cross_entropy",
)  # fmt: skip
_FUSED_LOSS = LIGER[-1]
# What Axolotl refuses beside Liger's kernels, or does instead of them.
_WITHOUT_LIGER = (
    "cut_cross_entropy", "chunked_cross_entropy", "liger_cross_entropy", "tiled_mlp",
    "use_tiled_mlp", "kd_trainer",
)  # fmt: skip
# What changes a method so much that the formulas are not of it.
_UNCOVERED = (
    "load_in_8bit", "gptq", "relora", "unfrozen_parameters", "layer_offloading", "lisa_n_layers",
    "expert_parallel_size", "max_memory", "gpu_memory_limit",
)  # fmt: skip
_KERNELS = ("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel")
_AMPERE = (8, 0)
_ADAM = ("adamw_torch_fused", "adamw_torch")
EIGHT_BIT = ("adamw_8bit", "adamw_bnb_8bit", "adamw_torch_8bit")


def make(values: Mapping[str, Value], facts: Facts) -> Plan | None:
    """The plan of a job on what is there, or None. `values` are the user's and what the rules of
    the method have chosen."""
    shape = shapes.of(facts.model.config, facts.model.parameters)
    chosen = {key: value.value for key, value in values.items()}
    if shape is None or facts.device == "cpu" or not facts.machine.gpus or not _covered(chosen):
        return None
    card, world = cards.of(facts.machine.gpus[0]), facts.parallel.world
    shared = [chosen.get(f"{kind}_parallel_size") or 1 for kind in ("tensor", "context")]
    job = Job(
        shape=shape,
        card=card,
        lengths=_lengths(facts, chosen),
        fixed=_fixed(chosen, shape, card, facts),
        free=_free(values, chosen, shape, facts),
        epochs=chosen.get("num_epochs") or 1,
        max_steps=chosen.get("max_steps") or None,
        sequences=chosen.get("batch_size") or None,
        accumulation=chosen.get("gradient_accumulation_steps"),
        ranks=world,
        replicas=max(1, world // (shared[0] * shared[1])),
        may_quantise=method_is_open(values),
        may_spare=parallel.may_spare(facts) and "gradient_accumulation_steps" not in chosen,
    )
    return choose.choose(job)


def method_is_open(values: Mapping[str, Value]) -> bool:
    """Whether LoRA is envtune's choice."""
    adapter = values.get("adapter")
    return adapter is not None and (adapter.value, adapter.source) == ("lora", "envtune")


def _covered(chosen: Mapping[str, Any]) -> bool:
    adapter = chosen.get("adapter") or "full"
    optimizer = chosen.get("optimizer") or _ADAM[0]
    known = optimizer in (*_ADAM, *EIGHT_BIT)
    return adapter in ("full", "lora", "qlora") and known and not any(map(chosen.get, _UNCOVERED))


def _lengths(facts: Facts, chosen: Mapping[str, Any]) -> Lengths:
    known = [data.lengths for data in facts.data]
    found = [one for one in known if one is not None]
    if not found or len(found) < len(known):
        return plan_rows.supposed()
    held = chosen.get("val_set_size") or 0
    rows = plan_rows.together(found)
    if rows.rows is None or not held:
        return rows
    kept = rows.rows * (1 - held) if held < 1 else rows.rows - held
    return replace(rows, rows=max(1, round(kept)))


def _fixed(
    chosen: Mapping[str, Any], shape: shapes.Shape, card: cards.Card, facts: Facts
) -> Choice:
    method = chosen.get("adapter") or "full"
    attention = str(chosen.get("attn_implementation", "sdpa"))
    return Choice(
        method=method,
        micro=chosen.get("micro_batch_size") or 1,
        sequence=chosen.get("sequence_len") or 2048,
        liger=uses_liger(chosen, shape.kind, card.capability),
        kernels=method != "full" and _kernels(chosen),
        rank=chosen.get("lora_r") or 16,
        dropout=bool(chosen.get("lora_dropout")),
        chunked=bool(chosen.get("chunked_cross_entropy") or chosen.get("cut_cross_entropy")),
        experts_quantised=bool(chosen.get("quantize_moe_experts")),
        expanded=not packing.is_flash(attention),
        masked=card.capability < _AMPERE or shape.head_dim > 256 or attention != "sdpa",
        exact=not packing.is_flash(attention) and not chosen.get("cut_cross_entropy"),
        preset=facts.parallel.preset,
        ranks=facts.parallel.world,
    )


def uses_liger(chosen: Mapping[str, Any], kind: str, capability: tuple[int, int]) -> bool:
    """Whether Liger's kernels run: the user's word, or where they go with all else."""
    if any(key in chosen for key in LIGER):
        return bool(chosen.get(_FUSED_LOSS))
    tensor = (chosen.get("tensor_parallel_size") or 1) > 1
    known = kind in _LIGER_MODELS and capability >= (7, 5)
    return known and not tensor and not any(map(chosen.get, _WITHOUT_LIGER))


def with_liger(values: Mapping[str, Value], facts: Facts) -> dict[str, Value]:
    """Liger's kernels, all of them, or none where the user has said anything of them."""
    if facts.plan is None or not facts.plan.choice.liger or any(k in values for k in LIGER):
        return {}
    reason = "Liger's kernel takes less memory, which buys a larger batch"
    return {key: Value(True, "envtune", reason) for key in LIGER}


def _kernels(chosen: Mapping[str, Any]) -> bool:
    """Whether Axolotl takes its kernels for LoRA by itself, which needs all linears to be trained
    and the model's own code."""
    if chosen.get("trust_remote_code") or any(chosen.get(key) is False for key in _KERNELS):
        return False
    return bool(chosen.get("lora_target_linear"))


def _free(
    values: Mapping[str, Value], chosen: Mapping[str, Any], shape: shapes.Shape, facts: Facts
) -> Free:
    """What the user has left open; what is set is the one thing to choose."""
    packed: tuple[bool, ...] = (True, False)
    if "sample_packing" in values:
        packed = (bool(chosen["sample_packing"]),)
    elif packing.why_not(chosen, shape.kind):
        packed = (False,)
    micro = chosen.get("micro_batch_size")
    eight: tuple[bool, ...] = (False,) if chosen.get("adapter") else (False, True)
    if "optimizer" in chosen and values["optimizer"].source != "envtune":
        eight = (chosen["optimizer"] in EIGHT_BIT,)
    return Free(
        packing=packed,
        micro=(micro,) if micro else (),
        recompute=_recompute(chosen),
        preset=parallel.presets(chosen, facts),
        eight_bit_adam=eight,
    )


def _recompute(chosen: Mapping[str, Any]) -> tuple[str, ...]:
    if chosen.get("activation_offloading") or chosen.get("gradient_checkpointing") == "offload":
        return (OFFLOAD,)
    if "gradient_checkpointing" not in chosen:
        return (NONE, RECOMPUTE, OFFLOAD)
    return (RECOMPUTE,) if chosen["gradient_checkpointing"] else (NONE,)

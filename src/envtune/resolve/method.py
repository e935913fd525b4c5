"""What is trained, and how fast it learns."""

from collections.abc import Mapping
from typing import Any

from envtune.resolve.config import Choice, Chosen, Facts, Value
from envtune.resolve.plan.reasons import of_rate

_LORA = ("lora", "qlora")
# Axolotl refuses an adapter beside these.
_WITHOUT_ADAPTER = ("use_onebitllms", "flash_attn_fuse_mlp")
# What names the weights that an adapter changes.
_TARGETS = (
    "lora_target_modules", "lora_target_parameters", "quantize_moe_experts", "use_dsv4_kernels",
)  # fmt: skip
_RANK = 16
# LoRA needs about ten times the rate of full fine-tuning (Schulman et al. 2025, "LoRA
# Without Regret"); 2e-4 is QLoRA's own for models up to 13B (Dettmers et al. 2023).
_RATE_LORA, _RATE_FULL = 2e-4, 2e-5


def is_lora(chosen: Chosen) -> bool:
    """Whether an adapter of LoRA's family is trained."""
    return chosen.get("adapter") in _LORA


def named(values: Mapping[str, Value]) -> dict[str, Value]:
    """One layer's name as a list of one: PEFT takes a text for a pattern of whole paths."""
    given = values.get("lora_target_modules")
    if given is None or not is_name(given.value):
        return {}
    return {"lora_target_modules": Value([given.value], given.source, given.reason)}


def is_name(targets: Any) -> bool:
    """Whether LoRA's targets are one layer's name and neither a pattern nor a list."""
    return isinstance(targets, str) and targets.replace("_", "a").isalnum()


def adapter(facts: Facts, chosen: Chosen) -> Choice | None:
    whole = chosen.get("optimizer") == "q_galore_adamw8bit"
    if whole or any(chosen.get(key) for key in _WITHOUT_ADAPTER):
        return None
    if chosen.get("load_in_4bit"):
        return Choice("qlora", "LoRA on 4-bit weights")
    if facts.unfit:
        return Choice("qlora", f"LoRA does not fit: {facts.unfit}")
    return Choice("lora", "an adapter trains in little memory; null trains all weights")


def four_bit(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(True, "what qlora means") if chosen.get("adapter") == "qlora" else None


def rank(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(_RANK, "enough for most instruction data") if is_lora(chosen) else None


def alpha(facts: Facts, chosen: Chosen) -> Choice | None:
    if not is_lora(chosen) or not chosen.get("lora_r"):
        return None
    return Choice(2 * chosen["lora_r"], "twice the rank: a scale of 2")


def dropout(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(0.0, "no dropout: few epochs") if is_lora(chosen) else None


def targets(facts: Facts, chosen: Chosen) -> Choice | None:
    if not is_lora(chosen) or any(chosen.get(key) for key in _TARGETS):
        return None
    return Choice(True, "all linear layers learn best and let the fused kernels work")


def learning_rate(facts: Facts, chosen: Chosen) -> Choice | None:
    rate, why = (_RATE_LORA, "LoRA") if is_lora(chosen) else (_RATE_FULL, "all weights")
    if facts.plan and facts.plan.raised > 1:
        raised = float(f"{rate * facts.plan.raised:.2g}")
        return Choice(raised, f"{rate:g} is usual for {why}, raised {of_rate(facts.plan)}")
    usual = "usual for LoRA" if is_lora(chosen) else "usual when all weights are trained"
    return Choice(rate, usual)


def epochs(facts: Facts, chosen: Chosen) -> Choice | None:
    if chosen.get("max_steps"):
        return None
    return Choice(3, "usual for instruction data")


def optimizer(facts: Facts, chosen: Chosen) -> Choice | None:
    if facts.device == "cpu":
        return Choice("adamw_torch", "CPU")
    if facts.plan and facts.plan.choice.eight_bit_adam:
        sharded = facts.plan.choice.preset == "fsdp2"
        name = "adamw_torch_8bit" if sharded else "adamw_8bit"
        return Choice(name, "with states of 16 bits or more it would not fit")
    return Choice("adamw_torch_fused", "one kernel for all parameters")


def scheduler(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice("cosine", "decays to nothing without a setting of its own")


def warmup(facts: Facts, chosen: Chosen) -> Choice | None:
    if "warmup_steps" in chosen:
        return None
    return Choice(0.03, "3 % of the steps")


def seed(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(42, "the same environment gives the same adapter")


RULES = (
    ("adapter", adapter),
    ("load_in_4bit", four_bit),
    ("lora_r", rank),
    ("lora_alpha", alpha),
    ("lora_dropout", dropout),
    ("lora_target_linear", targets),
    ("learning_rate", learning_rate),
    ("num_epochs", epochs),
    ("optimizer", optimizer),
    ("lr_scheduler", scheduler),
    ("warmup_ratio", warmup),
    ("seed", seed),
)

"""Number formats, attention, kernels and recompute, by what the device can do."""

from envtune.resolve.config import Choice, Chosen, Facts
from envtune.resolve.plan import memory, reasons

_AMPERE = (8, 0)


def _bf16_capable(facts: Facts) -> bool:
    return bool(facts.machine.gpus) and facts.machine.gpus[0].capability >= _AMPERE


def bf16(facts: Facts, chosen: Chosen) -> Choice | None:
    if facts.device == "cpu":
        return Choice(False, "CPU trains in fp32")
    if chosen.get("fp16"):
        return Choice(False, "fp16 was asked for")
    if _bf16_capable(facts):
        return Choice(True, "the GPU has it")
    return Choice(False, "needs an Ampere GPU or newer")


def fp16(facts: Facts, chosen: Chosen) -> Choice | None:
    if facts.device == "cpu":
        return Choice(False, "CPU trains in fp32")
    return Choice(not chosen.get("bf16"), "where bf16 is not")


def attention(facts: Facts, chosen: Chosen) -> Choice | None:
    if chosen.get("gemma4_hybrid_attn_impl"):
        return Choice("flash_attention_2", "what Gemma 4's hybrid is made of")
    return Choice("sdpa", "PyTorch's own: no flash-attn needed, isolates packed rows too")


def kernel(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(False, "Triton kernels need a GPU") if facts.device == "cpu" else None


def checkpointing(facts: Facts, chosen: Chosen) -> Choice | None:
    if facts.plan:
        again = facts.plan.choice.recompute != memory.NONE
        return Choice(again, reasons.of_recompute(facts.plan))
    if facts.device == "cpu":
        return Choice(False, "recompute saves GPU memory only")
    return Choice(True, "fits first; false is faster where memory allows")


def offloading(facts: Facts, chosen: Chosen) -> Choice | None:
    """Layers' inputs in the host's memory; with LoRA, too, what is kept is what recompute keeps."""
    if facts.plan is None or facts.plan.choice.recompute != memory.OFFLOAD:
        return None
    if not chosen.get("gradient_checkpointing"):
        return None
    return Choice("hidden_states", reasons.of_recompute(facts.plan))


def varlen(facts: Facts, chosen: Chosen) -> Choice | None:
    """torch's attention over documents is flash attention, which has no code for Turing."""
    packed = facts.plan and chosen.get("sample_packing")
    if not packed or chosen.get("attn_implementation") != "sdpa" or _bf16_capable(facts):
        return None
    return Choice(False, "torch's needs an Ampere GPU; a mask keeps documents apart")


def workers(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(0, "no second process on CPU") if facts.device == "cpu" else None


def pinned(facts: Facts, chosen: Chosen) -> Choice | None:
    return Choice(False, "no GPU to copy to") if facts.device == "cpu" else None


RULES = (
    ("bf16", bf16),
    ("fp16", fp16),
    ("attn_implementation", attention),
    ("lora_mlp_kernel", kernel),
    ("lora_qkv_kernel", kernel),
    ("lora_o_kernel", kernel),
    ("lora_embedding_kernel", kernel),
    ("sdpa_varlen", varlen),
    ("gradient_checkpointing", checkpointing),
    ("activation_offloading", offloading),
    ("dataloader_num_workers", workers),
    ("dataloader_pin_memory", pinned),
)

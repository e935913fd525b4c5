"""Number formats, attention, kernels and recompute, by what the device can do."""

from envtune.resolve.config import Choice, Chosen, Facts

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
    if facts.device == "cpu":
        return Choice(False, "recompute saves GPU memory only")
    return Choice(True, "fits first; false is faster where memory allows")


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
    ("gradient_checkpointing", checkpointing),
    ("dataloader_num_workers", workers),
    ("dataloader_pin_memory", pinned),
)

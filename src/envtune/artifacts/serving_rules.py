"""What vLLM 0.32.0 takes of an adapter, as tables. Read again with each new vLLM.

REFUSED and RANKS are its peft_helper.py and its --max-lora-rank; the architectures are the
classes of its registry that declare `SupportsLoRA`, and `embedding_modules` with them.
"""

from collections.abc import Callable, Mapping
from typing import Any

# It pads every adapter to one of these; whatever is above the last has to be merged.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)

# Any other word means that PEFT changes the base's weights before it trains.
_HARMLESS = {"gaussian", "eva", "orthogonal", "mica", "lora_ga"}


def _changes_the_base(value: Any) -> bool:
    return isinstance(value, str) and value.lower() not in _HARMLESS


def _some_bias(value: Any) -> bool:
    return value not in (None, "none")


# A key of adapter_config.json -> what vLLM refuses of it, and what that is in words.
REFUSED: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "modules_to_save": (bool, "It trained whole layers"),
    "use_dora": (bool, "It is a DoRA"),
    "bias": (_some_bias, "It trained biases of the base"),
    "lora_bias": (bool, "Its matrices have biases"),
    "init_lora_weights": (_changes_the_base, "It started by changing the base's weights"),
    "use_bdlora": (bool, "Its matrices are block-diagonal"),
}

# These cannot be merged either: they change more than weights.
HOPELESS: Mapping[str, str] = {
    "alora_invocation_tokens": "acts from certain tokens on (aLoRA)",
    "layer_replication": "repeats layers of the base",
    "use_qalora": "is a QALoRA",
}

# Language models whose embed_tokens and lm_head take a LoRA.
WITH_EMBEDDING_LORA = frozenset({
    "ApertusForCausalLM", "DeciLMForCausalLM", "Ernie4_5ForCausalLM", "Exaone4ForCausalLM",
    "FalconH1ForCausalLM", "GraniteForCausalLM", "GraniteMoeForCausalLM",
    "GraniteMoeHybridForCausalLM", "GraniteMoeSharedForCausalLM", "HyperCLOVAXForCausalLM",
    "InternLM3ForCausalLM", "JambaForCausalLM", "Lfm2ForCausalLM", "Lfm2MoeForCausalLM",
    "Llama4ForCausalLM", "LlamaForCausalLM", "MiniCPM3ForCausalLM", "MiniCPMForCausalLM",
    "MixtralForCausalLM", "NemotronForCausalLM", "NemotronHForCausalLM", "Phi3ForCausalLM",
    "PhiMoEForCausalLM", "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForCausalLM", "SolarForCausalLM", "TeleChat2ForCausalLM",
})  # fmt: skip

# Language models that take no LoRA at all.
WITHOUT_LORA = frozenset({
    "BloomForCausalLM", "Cohere2MoeForCausalLM", "DbrxForCausalLM", "FalconForCausalLM",
    "FalconMambaForCausalLM", "GPT2LMHeadModel", "GPTJForCausalLM", "Gemma3nForCausalLM",
    "Gemma3nForConditionalGeneration", "Mamba2ForCausalLM", "MambaForCausalLM",
    "MiMoV2FlashForCausalLM", "OrionForCausalLM", "StableLmForCausalLM", "Zamba2ForCausalLM",
})  # fmt: skip

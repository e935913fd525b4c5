"""The settings of the stages after training, in the stages' order."""

from envtune.contract.own import FLAG, Own

EXPORT: dict[str, Own] = {
    "SFT_EXPORT": Own(FLAG, True, "make a trained adapter servable by vLLM, or merge it"),
    "SFT_LORA_POST_PROCESS_FOR_VLLM": Own(
        FLAG, False, "write new_embeddings.safetensors too, which old servers of vLLM read"
    ),
}

AFTER: dict[str, Own] = {**EXPORT}

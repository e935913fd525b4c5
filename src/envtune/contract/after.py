"""The settings of the stages after training, in the stages' order."""

from envtune.contract.own import FLAG, TEXT, Own

EXPORT: dict[str, Own] = {
    "SFT_EXPORT": Own(FLAG, True, "make a trained adapter servable by vLLM, or merge it"),
    "SFT_LORA_POST_PROCESS_FOR_VLLM": Own(
        FLAG, False, "write new_embeddings.safetensors too, which old servers of vLLM read"
    ),
}

PUBLISH: dict[str, Own] = {
    "SFT_PUSH_TO": Own(
        {"type": "array", "items": TEXT},
        None,
        "where the checked result is published: org/name of the Hub, s3://, gs://, az://, file:///",
    ),
    "SFT_PUSH_WHAT": Own(
        {"enum": ["auto", "adapter", "model", "merged", "merged_awq", "serving"]},
        "auto",
        "which of the run's folders is published; auto: the one that serves",
    ),
    "SFT_PUSH_PRIVATE": Own(FLAG, True, "a repository that is made on the Hub is private"),
}

AFTER: dict[str, Own] = {**EXPORT, **PUBLISH}

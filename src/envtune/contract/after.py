"""The settings of the stages after training, in the stages' order."""

from envtune.contract.own import FLAG, TEXT, Own

EXPORT: dict[str, Own] = {
    "SFT_EXPORT": Own(FLAG, True, "make a trained adapter servable by vLLM, or merge it"),
    "SFT_LORA_POST_PROCESS_FOR_VLLM": Own(
        FLAG, False, "write new_embeddings.safetensors too, which old servers of vLLM read"
    ),
}

QUANTISE: dict[str, Own] = {
    "SFT_QUANTISE": Own(
        {"anyOf": [{"enum": ["w4a16", "fp8", "w8a8"]}, {"type": "null"}]},
        None,
        "make a smaller copy of the model: 4-bit weights by AWQ, 8-bit floats, or 8-bit integers",
    ),
    "SFT_CALIBRATION_SAMPLES": Own(
        {"type": "integer", "minimum": 1, "maximum": 100_000},
        512,
        "how many of the prepared rows the quantisation looks at, at most",
    ),
    "SFT_CALIBRATION_SEQUENCE_LEN": Own(
        {"type": "integer", "minimum": 2},
        None,
        "tokens of each such row, at most; by default AXOLOTL_SEQUENCE_LEN, and 2048 at most",
    ),
    "SFT_LLMCOMPRESSOR_VENV": Own(
        TEXT,
        None,
        "folder of the environment that quantises; by default .venv-quantise beside the one "
        "that trains",
    ),
}

AFTER: dict[str, Own] = {**EXPORT, **QUANTISE}

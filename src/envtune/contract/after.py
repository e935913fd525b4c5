"""The settings of the stages after training, in the stages' order."""

from envtune import upstream
from envtune.contract.own import FLAG, SECONDS, TEXT, Own

# Every flag of vLLM is a variable of its own too: SFT_SERVE_<FLAG>.
SERVE_FLAG = "SFT_SERVE_"
SERVE_FLAGS = "SFT_SERVE_ARGS"

EXPORT: dict[str, Own] = {
    "SFT_EXPORT": Own(FLAG, True, "make a trained adapter servable by vLLM, or merge it"),
    "SFT_MERGE": Own(FLAG, False, "merge the adapter, whatever it is, and serve the whole model"),
    "SFT_LORA_POST_PROCESS_FOR_VLLM": Own(
        FLAG, False, "write new_embeddings.safetensors too, which old servers of vLLM read"
    ),
}

PARITY: dict[str, Own] = {
    "SFT_PARITY": Own(
        {"enum": ["auto", "require", "off"]},
        "auto",
        "prove that vLLM answers as training would; auto: where vLLM is installed",
    ),
}

SERVE: dict[str, Own] = {
    "SFT_SERVE": Own(
        FLAG, False, "serve what was trained with vLLM until the container is stopped"
    ),
    SERVE_FLAGS: Own(
        {"type": "object", "properties": upstream.vllm()["flags"]},
        None,
        "a JSON object of vLLM's flags; SFT_SERVE_<FLAG> sets one",
    ),
    "SFT_SERVED_MODEL_RELPATH": Own(
        TEXT,
        None,
        "the whole model to serve, a folder below the outputs, in place of the run's own",
    ),
    "SFT_PREFER_AWQ": Own(FLAG, True, "serve the quantised model where the run has one"),
    "SFT_SERVE_START_SECONDS": Own(SECONDS, 1800, "seconds until vLLM has to be ready"),
    "SFT_VLLM_VENV": Own(
        TEXT, None, "folder of the environment that holds vLLM; else .venv-serve beside this one's"
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

AFTER: dict[str, Own] = {**EXPORT, **QUANTISE, **PARITY, **PUBLISH, **SERVE}

"""The settings of the stages after training, in the stages' order."""

from typing import Any

from envtune.settings import upstream
from envtune.settings.own.setting import COUNT, FLAG, SECONDS, TEXT, Own

# Every flag of vLLM is a variable of its own too: SFT_SERVE_<FLAG>.
SERVE_FLAG = "SFT_SERVE_"
SERVE_FLAGS = "SFT_SERVE_ARGS"
SERVE_OPEN, SERVE_OPEN_METRICS = "SFT_SERVE_OPEN", "SFT_SERVE_OPEN_METRICS"

EXPORT: dict[str, Own] = {
    "SFT_EXPORT": Own(FLAG, True, "make a trained adapter servable by vLLM, or merge it"),
    "SFT_CHAT_LAYOUT": Own(
        {"anyOf": [TEXT, {"type": "null"}]},
        None,
        "the data set, by path or number, whose layout chats are served in; null: the largest",
    ),
    "SFT_MERGE": Own(FLAG, False, "merge the adapter, whatever it is, and serve the whole model"),
    "SFT_LORA_POST_PROCESS_FOR_VLLM": Own(
        FLAG, False, "write new_embeddings.safetensors too, which old servers of vLLM read"
    ),
}

# Where the smaller copy lies by its scheme; the first is the name that servers of old look for.
QUANTISED = {"w4a16": "merged_awq", "fp8": "merged_fp8", "w8a8": "merged_w8a8"}
QUANTISE: dict[str, Own] = {
    "SFT_QUANTISE": Own(
        {"anyOf": [{"enum": list(QUANTISED)}, {"type": "null"}]},
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

PARITY: dict[str, Own] = {
    "SFT_PARITY": Own(
        {"enum": ["auto", "require", "layout", "off"]},
        "auto",
        "prove that vLLM answers as training would; auto: where vLLM is installed; layout: what "
        "it makes of chats alone, without a server",
    ),
}

_TEXTS = {"anyOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1}]}
_MESSAGE = {"type": "object", "properties": {"role": TEXT, "content": TEXT}}
# A prompt, and what its answer has to keep.
PROMPT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "instruction": TEXT,
        "prompt": TEXT,
        "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
        "input": TEXT,
        "system": TEXT,
        "language": TEXT,
        "max_sentences": COUNT,
        "reference": _TEXTS,
        "references": _TEXTS,
    },
    "title": 'an object such as {"instruction": "Say hello.", "language": "en"}',
}
_PROMPTS = {
    "type": "array", "items": {"anyOf": [TEXT, PROMPT]}, "minItems": 1,
    "title": 'a JSON list such as ["Say hello.", {"instruction": "Say bye.", "language": "en"}]',
}  # fmt: skip
_PROMPTS_OR_PATH = {"anyOf": [_PROMPTS, {**TEXT, "title": "the path of a file with prompts"}]}
_SHARE = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
_WHOLE = {"type": "integer", "minimum": 0}
_POSITIVE = {"type": "number", "exclusiveMinimum": 0}
# Names of transformers' GenerationConfig.
_GENERATION = {
    "type": "object",
    "properties": {
        "max_new_tokens": {"type": "integer", "minimum": 1, "maximum": 131072},
        "min_new_tokens": _WHOLE,
        "do_sample": FLAG,
        "temperature": {"type": "number", "minimum": 0},
        "top_p": _SHARE,
        "top_k": _WHOLE,
        "min_p": {"type": "number", "minimum": 0, "maximum": 1},
        "typical_p": _SHARE,
        "repetition_penalty": _POSITIVE,
        "no_repeat_ngram_size": _WHOLE,
        "num_beams": {"type": "integer", "minimum": 1, "maximum": 64},
        "length_penalty": {"type": "number"},
    },
}

EVALUATE: dict[str, Own] = {
    "SFT_EVALUATE": Own(
        FLAG, None, "measure what was trained beside its base; on where one of the next is set"
    ),
    "SFT_EVAL_DATASET": Own(
        TEXT, None, "a data file like the first data set, to measure the loss on its rows"
    ),
    "SFT_EVAL_PROMPTS": Own(
        _PROMPTS_OR_PATH,
        None,
        "prompts to answer: a JSON list, or a JSON, JSONL, YAML or text file",
    ),
    "SFT_EVAL_GENERATION": Own(
        _GENERATION, None, "how to answer, by names of transformers' GenerationConfig; greedy"
    ),
    "SFT_EVAL_PAIRS": Own(
        TEXT, None, "a file of prompts with reference, scored by BLEU, chrF and ROUGE"
    ),
    "SFT_EVAL_TASKS": Own(
        {"type": "array", "items": TEXT, "minItems": 1}, None, "tasks of lm_eval by name"
    ),
    "SFT_EVAL_TASKS_LIMIT": Own(
        {"type": "integer", "minimum": 1}, None, "the first rows of each task only"
    ),
    "SFT_EVAL_TASKS_PATH": Own(TEXT, None, "a folder with tasks of your own as lm_eval's YAML"),
}

# What turns the evaluation on by being set.
EVALUATED = ("SFT_EVAL_PROMPTS", "SFT_EVAL_PAIRS", "SFT_EVAL_TASKS", "SFT_EVAL_DATASET")

PUBLISH: dict[str, Own] = {
    "SFT_PUSH_TO": Own(
        {"type": "array", "items": TEXT},
        None,
        "where the checked result is published: org/name of the Hub, s3://, gs://, az://, file:///",
    ),
    "SFT_PUSH_WHAT": Own(
        {"enum": ["auto", "adapter", "model", "merged", *QUANTISED.values(), "serving"]},
        "auto",
        "which of the run's folders is published; auto: the one that serves",
    ),
    "SFT_PUSH_PRIVATE": Own(FLAG, True, "a repository that is made on the Hub is private"),
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
    SERVE_OPEN: Own(
        FLAG, False, "answer everybody who reaches the port, where VLLM_API_KEY is not set"
    ),
    SERVE_OPEN_METRICS: Own(
        FLAG, False, "answer GET /metrics without the key, as GET /health always is"
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

AFTER: dict[str, Own] = {**EXPORT, **QUANTISE, **PARITY, **EVALUATE, **PUBLISH, **SERVE}

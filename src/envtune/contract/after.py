"""The settings of the stages after training, in the stages' order."""

from typing import Any

from envtune.contract.own import COUNT, FLAG, TEXT, Own

EXPORT: dict[str, Own] = {
    "SFT_EXPORT": Own(FLAG, True, "make a trained adapter servable by vLLM, or merge it"),
    "SFT_LORA_POST_PROCESS_FOR_VLLM": Own(
        FLAG, False, "write new_embeddings.safetensors too, which old servers of vLLM read"
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

AFTER: dict[str, Own] = {**EXPORT, **EVALUATE}

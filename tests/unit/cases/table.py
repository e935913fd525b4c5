"""What people bring, one line each: a name, the environment over BASE, the code, words of its line.

Code 0 is `valid`; its words are looked for in what is told then, a leading `!` says absent.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Case(NamedTuple):
    """`environ` over BASE, where None unsets a variable."""

    name: str
    environ: Mapping[str, str | None]
    code: int
    words: tuple[str, ...] = ()


BASE = {
    "AXOLOTL_BASE_MODEL": "model",
    "AXOLOTL_DATASETS__0__PATH": "alpaca.jsonl",
    "AXOLOTL_SEQUENCE_LEN": "128",
    "SFT_DEVICE": "cpu",
    "SFT_PARITY": "off",
}
_QUOTED = "is wrapped in quotes, which --env-file keeps"
_CR = "ends in a CR"
_COMMENT = "has a comment at its end"
_COMMA = "ends in a comma"
_RL = {"AXOLOTL_LEARNING_RATE": "1e-5", "AXOLOTL_DATASETS__0__PATH": None}
_GPUS: dict[str, str | None] = {"SFT_PRETEND_GPU": "h100x4", "SFT_DEVICE": None}


def _one(name: str, variable: str, text: str | None, code: int, *words: str) -> Case:
    return Case(f"{name}: {variable}={text!r:.80}", {variable: text}, code, words)


def _texts() -> list[Case]:
    """A text or a path is refused whatever stands round it, and its line has the way out."""
    names = {
        "AXOLOTL_BASE_MODEL": "model", "AXOLOTL_DATASETS__0__PATH": "alpaca.jsonl",
        "SFT_OUTPUTS_DIR": "out", "AXOLOTL_OUTPUT_DIR": "out/run", "AXOLOTL_WANDB_PROJECT": "mine",
        "AXOLOTL_CHAT_TEMPLATE": "chatml", "WANDB_PROJECT": "mine", "MASTER_ADDR": "node0",
        "SFT_MODEL_NAME_OR_PATH": "model",
    }  # fmt: skip
    forms = {'"{}"': _QUOTED, "'{}'": _QUOTED, "{}\r": _CR, "{} # mine": _COMMENT, "{},": _COMMA,
             '"{}"\r': _CR, "“{}”": _QUOTED, '"{}" # mine': _COMMENT, '"{}': "begins with a quote"}  # fmt: skip
    return [
        _one("text", name, form.format(text), 1, f"{name}: ", words, f"{name}={text}")
        for name, text in names.items()
        for form, words in forms.items()
    ]


def _typed() -> list[Case]:
    """A number, a flag or JSON is meant without, and that is told."""
    names = {
        "AXOLOTL_SEQUENCE_LEN": "256", "AXOLOTL_LEARNING_RATE": "5e-4", "AXOLOTL_SEED": "7",
        "AXOLOTL_LOAD_IN_8BIT": "false", "AXOLOTL_LORA_TARGET_MODULES": '["q_proj"]',
        "AXOLOTL_SPECIAL_TOKENS": '{"pad_token": "<pad>"}', "SFT_MERGE": "true",
        "NNODES": "1", "AXOLOTL_WARMUP_RATIO": "0.1",
    }  # fmt: skip
    forms = {'"{}"': "is wrapped in quotes", "'{}'": "is wrapped in quotes", "{}\r": _CR,
             "{} # mine": _COMMENT, "{},": _COMMA, '"{}",': _COMMA}  # fmt: skip
    return [
        _one("typed", name, form.format(text), 0, f"{name} {words}", "taken without")
        for name, text in names.items()
        for form, words in forms.items()
    ]


def _names() -> list[Case]:
    """A name with something before, after or in it is none, and the right one is told."""
    forms = ("export {}", "\ufeff{}", "{} ", " {}", "set {}", '"{}"', "export\t{}", "-e {}")
    names = ("AXOLOTL_LEARNING_RATE", "SFT_OUTPUTS_DIR", "HF_TOKEN", "WANDB_API_KEY", "MASTER_PORT")
    made = [
        _one("name", form.format(name), "1", 1, f"write {name}=...")
        for name in names
        for form in forms
    ]
    lower = [
        _one(
            "lower", name.lower(), "1", 1, f"{name.lower()}: no such setting; did you mean {name}?"
        )
        for name in ("AXOLOTL_LEARNING_RATE", "SFT_OUTPUTS_DIR", "AXOLOTL_LORA_R")
    ]
    return [*made, *lower]


SECRETS = ("HF_TOKEN", "WANDB_API_KEY", "VLLM_API_KEY", "AWS_SECRET_ACCESS_KEY", "COMET_API_KEY")
SECRET = "hf_s3cr3t_0f_s0me_length"


def _secrets() -> list[Case]:
    """A key in quotes is a night lost; its line does not hold it."""
    forms = {'"{}"': _QUOTED, "'{}'": _QUOTED, "{}\r": _CR, "{} # mine": _COMMENT, "{} ": "blanks"}
    return [
        Case(
            f"secret: {name} {form!r}",
            {name: form.format(SECRET)},
            1,
            (f"{name}: ", words, f"!{SECRET}"),
        )
        for name in SECRETS
        for form, words in forms.items()
    ]


# JSON as an editor, a shell or Python leaves it, and names without their prefix.
_SLIPS = [
    Case(f"json: {text}", {"AXOLOTL_DATASETS__0__PATH": None, "AXOLOTL_DATASETS": text}, 1, (words,))
    for text, words in {
        "[{“path”: “alpaca.jsonl”}]": "an editor's curly quotes",
        "[{'path': 'alpaca.jsonl'}]": 'write its quotes as "',
        r'[{\"path\": \"alpaca.jsonl\"}]': "have backslashes before them",
        "alpaca.jsonl": "allowed: a JSON list",
    }.items()
] + [
    _one("bare", "LEARNING_RATE", "1e-4", 0, "did you mean AXOLOTL_LEARNING_RATE?"),
    _one("bare", "BASE_MODEL", "x", 0, "did you mean AXOLOTL_BASE_MODEL?"),
    _one("bare", "WANDB_PROJECT", "x", 0, "!did you mean"),
]  # fmt: skip

# What is meant as it is written stays.
_MEANT = [
    _one("meant", "AXOLOTL_CHAT_TEMPLATE_JINJA", "{{ messages }} # all", 0, "!--env-file"),
    _one("meant", "AXOLOTL_DEFAULT_SYSTEM_MESSAGE", 'Say "yes" or "no", no more', 0, "!--env-file"),
    _one("meant", "AXOLOTL_DEFAULT_SYSTEM_MESSAGE", "Write # before a heading", 0, "!--env-file"),
    _one("meant", "AXOLOTL_DEFAULT_SYSTEM_MESSAGE", '"Yes", she said, "or no"', 0, "!--env-file"),
    _one("meant", "WANDB_NOTES", "a note, # 7,", 0, "!--env-file"),
    _one("meant", "AXOLOTL_LORA_TARGET_MODULES", "q_proj,v_proj,", 0),
    _one("meant", "AXOLOTL_WANDB_NAME", "run#7", 0, "!--env-file"),
    _one("meant", "AXOLOTL_WANDB_NAME", "run #7", 0, "!--env-file"),
    _one("meant", "AXOLOTL_SEED", "7 #seven", 0, "has a comment at its end"),
    _one("meant", "AXOLOTL_SEED", "7 # a # b", 0, "has a comment at its end"),
    _one(
        "long",
        "AXOLOTL_WANDB_NAME",
        " " * 120_000 + "x" + " " * 120_000 + "#",
        1,
        "AXOLOTL_WANDB_NAME",
    ),
    _one("long", "AXOLOTL_WANDB_NAME", "#, " * 40_000 + "x", 0),
    _one("meant", "SFT_RUN_NOTE_OF_NOBODY", "1", 1, "no such setting"),
    _one("empty", "AXOLOTL_WANDB_PROJECT", '""', 0, "taken without"),
    _one("empty", "AXOLOTL_WANDB_PROJECT", "\r", 0, "counts as not set"),
]


_MISSING = [
    ("AXOLOTL_DATASETS__0__PATH", "alpca.jsonl", 3, "is not there; there is", "alpaca.jsonl"),
    ("AXOLOTL_DATASETS__0__PATH", "row/train.jsonl", 3, "there is", "rows/train.jsonl"),
    ("AXOLOTL_DATASETS__0__PATH", "rows/trian.jsonl", 3, "there is", "rows/train.jsonl"),
    ("AXOLOTL_DATASETS__0__PATH", "Alpaca.jsonl", 3, "there is", "/alpaca.jsonl"),
    ("AXOLOTL_BASE_MODEL", "./modle", 4, "is not there; there is", "/model"),
    ("AXOLOTL_DEEPSPEED", "dss.json", 1, "is not there; there is", "ds.json"),
    ("AXOLOTL_DEEPSPEED", "deepspeed_configs/zero3_bf16.json", 1, "SFT_ACCELERATE_PRESET=zero3"),
    ("AXOLOTL_DEEPSPEED", "zero2.json", 1, "SFT_ACCELERATE_PRESET=zero2"),
    ("AXOLOTL_RESUME_FROM_CHECKPOINT", "checkpoint-6", 1, "there is", "checkpoint-5"),
    ("AXOLOTL_RESUME_FROM_CHECKPOINT", "rows", 1, "is no checkpoint"),
    ("AXOLOTL_RESUME_FROM_CHECKPOINT", ".", 1, "is no checkpoint", "/checkpoint-5 has one"),
    ("AXOLOTL_CHAT_TEMPLATE_JINJA", "godo.jinja", 1, "there is", "good.jinja"),
    ("AXOLOTL_CHAT_TEMPLATE_JINJA", "bad.jinja", 1, "bad.jinja: is no Jinja at line 1"),
    ("AXOLOTL_CHAT_TEMPLATE_JINJA", "{% for m in messages %}", 1, "is no Jinja at line 1"),
    ("AXOLOTL_CHAT_TEMPLATE_JINJA", "a\n{{ m", 1, "is no Jinja at line 2"),
    ("SFT_TRAINER_CONFIG_JSON_PATH", "dss.json", 1, "there is", "ds.json"),
    ("SFT_EVAL_DATASET", "alpca.jsonl", 3, "is not there; there is", "alpaca.jsonl"),
    (
        "AXOLOTL_PLUGINS",
        "axolotl.integrations.liger.LigerPluginn",
        1,
        "did you mean axolotl.integrations.liger.LigerPlugin?",
    ),
    ("AXOLOTL_PLUGINS", "axolotl.integrations.ligr.LigerPlugin", 1, "did you mean"),
    ("AXOLOTL_PLUGINS", "mine.Plugin", 1, "there is no mine.Plugin"),
    ("AXOLOTL_PLUGINS", "__main__.Plugin", 1, "there is no __main__.Plugin"),
    ("AXOLOTL_PLUGINS", "LigerPlugin", 1, "there is no LigerPlugin"),
    (
        "AXOLOTL_DATASETS",
        '[{"path": "json", "data_files": "list.json"}]',
        3,
        "write the file as the path, list.json",
    ),
    (
        "AXOLOTL_DATASETS",
        '[{"path": "rows", "data_files": ["trian.jsonl"], "type": "alpaca"}]',
        3,
        "trian.jsonl is not there",
    ),
    (
        "AXOLOTL_DATASETS",
        '[{"path": "chat.jsonl", "chat_template_jinja": "godo.jinja"}]',
        1,
        "there is",
    ),
    ("AXOLOTL_TEST_DATASETS", '[{"path": "alpca.jsonl"}]', 3, "there is", "/alpaca.jsonl"),
    ("AXOLOTL_DATASETS__0__PATH", "rows/train", 3, "there is", "rows/train.jsonl"),
]
_THERE = [
    ("AXOLOTL_CHAT_TEMPLATE_JINJA", "good.jinja"),
    ("AXOLOTL_CHAT_TEMPLATE_JINJA", "{% for m in messages %}{% if m %}{% break %}{% endif %}{% endfor %}"),
    ("AXOLOTL_RESUME_FROM_CHECKPOINT", "checkpoint-5"),
    ("AXOLOTL_PLUGINS", "axolotl.integrations.liger.LigerPlugin"),
    ("AXOLOTL_PLUGINS", "envtune.engine.plugin.EnvtunePlugin"),
    ("AXOLOTL_DATASETS", '[{"path": "rows", "data_files": "train.jsonl", "type": "alpaca"}]'),
    ("AXOLOTL_DATASETS", '[{"path": "rows", "data_files": ["rows/*.jsonl"], "type": "alpaca"}]'),
    ("AXOLOTL_DATASETS", '[{"path": "rows", "data_files": "rows/train.jsonl", "type": "alpaca"}]'),
    ("AXOLOTL_DATASETS", '[{"path": "list.json"}]'),
]  # fmt: skip


def _named() -> list[Case]:
    """What a setting names has to be there, and the nearest name is told."""
    fresh = {"AXOLOTL_DATASETS": {"AXOLOTL_DATASETS__0__PATH": None},
             "AXOLOTL_CHAT_TEMPLATE_JINJA": {"AXOLOTL_CHAT_TEMPLATE": "jinja"},
             "AXOLOTL_DEEPSPEED": _GPUS}  # fmt: skip
    return [
        Case(f"named: {name}={text}", {**fresh.get(name, {}), name: text}, code, words)
        for name, text, code, *words in [*_MISSING, *((*pair, 0) for pair in _THERE)]
        for words in [tuple(map(str, words))]
    ]


_FIT = [
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", "query_key_value,q_proj", 0, "query_key_value fits no layer", "q_proj"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", '["q_prj"]', 1, "q_prj fits no layer", "did you mean q_proj?"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", "Wqkv,c_attn", 1, "Wqkv, c_attn fits no layer"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", r"model.layers.[\d]+.(mlp|self_attn).(up|q)_proj", 0, "!fits no"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", r"h.[\d]+.attn", 1, "fits no layer"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", "[unclosed", 1, "AXOLOTL_LORA_TARGET_MODULES"),
    _one("endless", "AXOLOTL_LORA_TARGET_MODULES", r"(\w+\.?)+x", 0),
    _one("endless", "AXOLOTL_LORA_TARGET_MODULES", "a{99999999999}", 1, "fits no layer"),
    _one("endless", "AXOLOTL_CHAT_TEMPLATE_JINJA", "{{" + "(" * 20_000, 1, "AXOLOTL_CHAT_TEMPLATE_JINJA: "),
    _one("endless", "AXOLOTL_CHAT_TEMPLATE_JINJA", "/dev/zero", 1, "no file that is there"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", "all-linear", 0, "!fits no"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", '["self_attn.q_proj", "lm_head"]', 0, "!fits no"),
    _one("target", "AXOLOTL_LORA_MODULES_TO_SAVE", '["embed_tokens", "lm_head"]', 0, "!fits no"),
    _one("target", "AXOLOTL_LORA_MODULES_TO_SAVE", '["wte"]', 0, "wte fits no layer"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", "q_proj", 0, "!fits no"),
    _one("target", "AXOLOTL_LORA_TARGET_MODULES", "q_prj", 1, "did you mean q_proj?"),
    Case("targets of nobody", {"AXOLOTL_ADAPTER": "null", "AXOLOTL_LORA_TARGET_MODULES": '["q_prj"]'}, 0),
    Case("target of shards", {"AXOLOTL_BASE_MODEL": "sharded", "AXOLOTL_LORA_TARGET_MODULES": '["q_prj"]'}, 1, ("did you mean q_proj?",)),
    Case("target of experts", {"AXOLOTL_BASE_MODEL": "experts", "AXOLOTL_LORA_TARGET_MODULES": '["w9"]'}, 0, ("!fits no",)),
    Case("target beside linear", {"AXOLOTL_LORA_TARGET_LINEAR": "true", "AXOLOTL_LORA_TARGET_MODULES": '["q_proj"]'}, 0),
    Case("no chat template", {"AXOLOTL_BASE_MODEL": "mute", "AXOLOTL_DATASETS__0__PATH": "chat.jsonl"}, 1, ("AXOLOTL_CHAT_TEMPLATE: is not set", "AXOLOTL_CHAT_TEMPLATE=alpaca")),
    Case("no chat template by default", {"AXOLOTL_BASE_MODEL": "mute", "AXOLOTL_DATASETS__0__PATH": "chat.jsonl", "AXOLOTL_CHAT_TEMPLATE": "tokenizer_default"}, 1, ("has no chat template",)),
    Case("a chat template set", {"AXOLOTL_BASE_MODEL": "mute", "AXOLOTL_DATASETS__0__PATH": "chat.jsonl", "AXOLOTL_CHAT_TEMPLATE": "chatml"}, 0),
    Case("a chat template as a way out", {"AXOLOTL_BASE_MODEL": "mute", "AXOLOTL_DATASETS__0__PATH": "chat.jsonl", "AXOLOTL_CHAT_TEMPLATE": "tokenizer_default_fallback_chatml"}, 0),
    Case("no chat template, no chat", {"AXOLOTL_BASE_MODEL": "mute"}, 0),
    Case("the tokenizer's chat template", {"AXOLOTL_DATASETS__0__PATH": "chat.jsonl"}, 0),
    *(_one("packed", "AXOLOTL_BASE_MODEL", m, 1, f"is quantised by {m}") for m in ("gptq", "awq", "compressed-tensors", "hqq", "aqlm")),
    _one("packed", "AXOLOTL_BASE_MODEL", "bitsandbytes", 0),
    _one("held back", "AXOLOTL_VAL_SET_SIZE", "2000", 3, "holds back 2000 of 10 rows"),
    _one("held back", "AXOLOTL_VAL_SET_SIZE", "10", 3, "holds back 10 of 10 rows"),
    _one("held back", "AXOLOTL_VAL_SET_SIZE", "9", 0),
    _one("held back", "AXOLOTL_VAL_SET_SIZE", "0.1", 0),
    Case("held back of a list", {"AXOLOTL_VAL_SET_SIZE": "50", "AXOLOTL_DATASETS__0__PATH": "list.json"}, 3, ("50 of 10 rows",)),
    Case("held back of a sample", {"AXOLOTL_VAL_SET_SIZE": "5", "SFT_SAMPLE_SIZE": "5"}, 3, ("5 of 5 rows",)),
    Case("held back of two sets", {"AXOLOTL_VAL_SET_SIZE": "15", "AXOLOTL_DATASETS__1__PATH": "list.json"}, 0),
    Case("weights for other sets", {"SFT_DATA_WEIGHTS": "0.7,0.3"}, 1, ("SFT_DATA_WEIGHTS: has 2 weights for 1 data sets", "alpaca.jsonl; give one for each")),
    Case("weights for each set", {"SFT_DATA_WEIGHTS": "0.7,0.3", "AXOLOTL_DATASETS__1__PATH": "list.json"}, 0),
    _one("a weight of nothing", "SFT_DATA_WEIGHTS", "0", 1, "SFT_DATA_WEIGHTS"),
    _one("flags' weights", "SFT_DATA_WEIGHTS", "0.7 0.3", 1, "SFT_DATA_WEIGHTS", "'0.7 0.3'"),
    Case("no row fits", {"SFT_MIN_PROMPT_LENGTH": "9", "SFT_MAX_PROMPT_LENGTH": "3"}, 1, ("SFT_MIN_PROMPT_LENGTH: 9 is more than SFT_MAX_PROMPT_LENGTH takes, 3",)),
    _one("a language", "SFT_LANGUAGES", "en,fr-CA", 0),
    _one("no language", "SFT_LANGUAGES", "english", 1, "SFT_LANGUAGES: 'english' is not allowed", "codes of ISO 639"),
    _one("an ending", "SFT_INTERLEAVE_STRATEGY", "shortest", 1, "one of all_exhausted, first_exhausted"),
    _one("no folder", "SFT_DATA_DIRS", "nowhere", 1, "is no folder that `envtune prepare` has finished"),
    Case("rows that stream", {"SFT_FILTER_URLS": "true", "AXOLOTL_STREAMING": "true", "AXOLOTL_MAX_STEPS": "3"}, 1, ("SFT_FILTER_URLS: cannot be obeyed: the rows are streamed",)),
    Case("filters", {"SFT_FILTER_URLS": "true", "SFT_MIN_RESPONSE_LENGTH": "1"}, 0),
    Case("nothing held back", {"AXOLOTL_VAL_SET_SIZE": "0", "AXOLOTL_EVAL_STRATEGY": "no"}, 0),
]  # fmt: skip


def _types() -> list[Case]:
    """Types that Axolotl has not, and columns that no row has."""
    unknown = {"sharegpt": "leave the type out", "alpcaa": "did you mean alpaca?",
               "chat-template": "did you mean chat_template?", "nothing.at_all": "is no type", "__main__": "is no type",
               "alpaca:chat": "", "alpaca_chat.load_qa": "has no column question", "completion": "has no column text",
               "envtune.engine.rows": "has no column text"}  # fmt: skip
    sft = [
        _one("type", "AXOLOTL_DATASETS__0__TYPE", name, 3 if words else 0, words or "!no type")
        for name, words in unknown.items()
    ]
    preferences = [
        ("dpo", "pairs", "chatml.intel", "chatml.prompt_pairs fits"),
        ("dpo", "pairs", "llama3.icr", "llama3.prompt_pairs fits"),
        ("dpo", "asked", "chatml.ultra", "chatml.intel fits"),
        ("dpo", "text", "chatml", "reads prompt|input|question"),
        ("dpo", "pairs", "chatml.prompt_pairs", ""),
        ("dpo", "asked", "chatml.intel", ""),
        ("dpo", "pairs", "chatml", ""),
        ("ipo", "pairs", "chatml.intel", "chatml.prompt_pairs fits"),
        ("kto", "liked", "chatml.argilla", "chatml.prompt_pairs fits"),
        ("kto", "pairs", "chatml.ultra", "reads prompt, completion, label"),
        ("kto", "liked", "chatml.ultra", ""),
    ]
    return sft + [
        Case(
            f"type: {rl} {rows} {name}",
            {**_RL, "AXOLOTL_RL": rl, "AXOLOTL_DATASETS": f'[{{"path": "{rows}.jsonl", "type": "{name}"}}]'},
            3 if words else 0,
            (words or "!reads",),
        )
        for rl, rows, name, words in preferences
    ]  # fmt: skip


_STREAMED = [
    Case(f"streamed {path}", {"AXOLOTL_DATASETS__0__PATH": None, "AXOLOTL_MAX_STEPS": "4", "AXOLOTL_PRETRAINING_DATASET": f'[{{"path": "{path}"}}]'}, code, words)
    for path, code, words in [
        ("text.jsonl", 0, ()),
        ("rows", 0, ()),
        ("txet.jsonl", 3, ("is not there; there is", "/text.jsonl")),
    ]
]  # fmt: skip

# What is served in place of the result lies below the folder of the runs, or will.
_SERVED = [
    Case(f"served: {path}", {"SFT_PRETEND_GPU": "h100x1", "SFT_DEVICE": None, "SFT_SERVE": "true", "SFT_SERVED_MODEL_RELPATH": path}, code, words)
    for path, code, words in [
        ("othr", 1, ("SFT_SERVED_MODEL_RELPATH: ", "holds no model; there is", "/outputs/other")),
        ("other", 0, ()),
        ("mine-run3/merged", 0, ()),
        ("other/config.json", 1, ("holds no model",)),
    ]
]  # fmt: skip

CASES = [
    *_texts(), *_typed(), *_names(), *_secrets(), *_SLIPS, *_MEANT, *_named(), *_FIT, *_types(), *_STREAMED, *_SERVED,
]  # fmt: skip

"""Environments as nobody should write them, from a seed: for the fuzz test and its benchmark."""

import base64
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from envtune.settings import axolotl_keys, upstream
from envtune.settings.own import OWN
from tests.plausible import AWKWARD, WORDS, spelled, value
from tests.unit.builders import write_model

TYPES = axolotl_keys.schema()
KEYS = sorted(TYPES.fields)
Environment = dict[str, str]

# Bytes that are no UTF-8, as Python's os.environ shows them.
_RAW = ("\udcff\udcfe", "caf\udce9", "\udc80{{ x }}")
_HUGE: tuple[Callable[[], str], ...] = (
    lambda: "x" * 1_000_000,
    lambda: "a," * 20_000,
    lambda: "9" * 400,
    lambda: "9" * 5000,
    lambda: "1e400",
    lambda: "[" * 100_000,
    lambda: '{"a":' * 50_000,
    lambda: '[{"path": "' + "y" * 100_000 + '"}]',
    lambda: "[" + "1," * 20_000 + "1]",
    lambda: "../" * 50_000,
)
_JSON = (
    "[", "{", "[}", "{}", "[]", "[null]", "[[]]", '{"": 1}', '{"a": NaN}', "[1e999]", '{"a": 1,}',
    '[{"path": 1}]', '[{"path": "a", "type": {"format": 1}}]', '[{"paht": "a"}]', '{"0": {"0": []}}',
    '"text"', '{"\\ud800": 1}', '["\\ud800"]', '[{"path": "\\u0000"}]', '{"a": 1, "a": 2}',
)  # fmt: skip
_LINKS = {
    "SFT_TRAINER_PORT": "tcp://10.0.0.1:80",
    "AXOLOTL_SERVICE_HOST": "10.0.0.1",
    "SFT_TRAINER_SERVICE_PORT": "80",
}


def furnish(place: Path) -> None:
    """A model folder and rows that pass for some; nothing ever loads them."""
    write_model(place / "model", **{"config.json": '{"model_type": "llama"}'})
    (place / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')


def environment(dice: random.Random, place: Path) -> Environment:
    """One environment. `place` was furnished, and gets the documents."""
    made = _base(dice, place)
    for step in dice.choices(_STEPS, _WEIGHTS, k=dice.randint(0, 9)):
        step(made, dice, place)
    return {name: text.replace("\0", "") for name, text in made.items() if name}


def _base(dice: random.Random, place: Path) -> Environment:
    elsewhere = dice.random() < 0.05  # on the Hub, which is not asked
    model = "acme/Tiny-Llama" if elsewhere else str(place / "model")
    rows = "acme/rows" if elsewhere else str(place / "rows.jsonl")
    made = {
        "AXOLOTL_BASE_MODEL": model,
        "SFT_OUTPUTS_DIR": str(place / "outputs"),
        "HF_HUB_OFFLINE": "1",
    }
    if dice.random() < 0.5:
        made["SFT_PRETEND_GPU"] = dice.choice(("h100", "h100x8", "t4x2", "rtx4090"))
    if dice.random() < 0.5:
        made["AXOLOTL_DATASETS"] = json.dumps([{"path": rows, "type": "alpaca"}])
    else:
        made |= {"AXOLOTL_DATASETS__0__PATH": rows, "AXOLOTL_DATASETS__0__TYPE": "alpaca"}
    if dice.random() < 0.05:
        del made[dice.choice(sorted(made))]
    return made


def _valid(made: Environment, dice: random.Random, place: Path) -> None:
    key = dice.choice(KEYS)
    text, _ = dice.choice(list(spelled(TYPES, TYPES.fields[key], dice)))
    made[_name(key)] = text


def _common(made: Environment, dice: random.Random, place: Path) -> None:
    """What users do set, in the combinations that they should not."""
    name, texts = dice.choice(sorted(_COMMON.items()))
    made[name] = dice.choice(texts)


_COMMON = {
    "AXOLOTL_ADAPTER": ("lora", "qlora", "null", "dora", "loar"),
    "AXOLOTL_LOAD_IN_4BIT": ("true", "false"),
    "AXOLOTL_LOAD_IN_8BIT": ("true", "false"),
    "AXOLOTL_LORA_R": ("8", "0", "-1", "eight"),
    "AXOLOTL_LEARNING_RATE": ("2e-4", "0", "-1", "nan", "1e400"),
    "AXOLOTL_MAX_STEPS": ("10", "0", "-1"),
    "AXOLOTL_NUM_EPOCHS": ("3", "0.5", "0"),
    "AXOLOTL_WARMUP_STEPS": ("10",),
    "AXOLOTL_WARMUP_RATIO": ("0.1", "2"),
    "AXOLOTL_SAVE_STEPS": ("10", "0.5", "0"),
    "AXOLOTL_SAVES_PER_EPOCH": ("1",),
    "AXOLOTL_SAVE_STRATEGY": ("no", "steps", "epoch", "best"),
    "AXOLOTL_EVAL_STEPS": ("10",),
    "AXOLOTL_VAL_SET_SIZE": ("0.1", "0", "100"),
    "AXOLOTL_MICRO_BATCH_SIZE": ("1", "0", "2.0"),
    "AXOLOTL_BATCH_SIZE": ("16",),
    "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": ("4",),
    "AXOLOTL_SAMPLE_PACKING": ("true", "auto"),
    "AXOLOTL_FLASH_ATTENTION": ("true",),
    "AXOLOTL_DEEPSPEED": ("zero2.json", "{}"),
    "AXOLOTL_FSDP_CONFIG": ("{}", '{"fsdp_version": 2}'),
    "AXOLOTL_RL": ("dpo", "grpo", "null"),
    "AXOLOTL_BF16": ("auto", "true", "false"),
    "AXOLOTL_FP16": ("true", "false"),
    "AXOLOTL_OPTIMIZER": ("adamw_torch", "adamww", "muon"),
    "AXOLOTL_CHAT_TEMPLATE": ("chatml", "jinja", "chatlm"),
    "SFT_DEVICE": ("cpu", "auto", "cuda"),
    "SFT_PRETEND_GPU": ("h1000", "h100x0", "a100"),
    "SFT_STRICT": ("false", "true"),
}


def _garbage(made: Environment, dice: random.Random, place: Path) -> None:
    name = dice.choice([_name(dice.choice(KEYS)), dice.choice(sorted(OWN))])
    made[name] = dice.choice((*AWKWARD, *WORDS, *_JSON, *_RAW, ""))


def _huge(made: Environment, dice: random.Random, place: Path) -> None:
    name = dice.choice([_name(dice.choice(KEYS)), dice.choice(sorted(OWN)), "AXOLOTL_BASE_MODEL"])
    made[name] = dice.choice(_HUGE)()


def _odd_name(made: Environment, dice: random.Random, place: Path) -> None:
    name = dice.choice([_name(dice.choice(KEYS)), dice.choice(sorted(OWN))])
    at = dice.randrange(len(name))
    slips = (
        name[:at] + name[at + 1 :], name.lower(), name + "__0__X", name + "__", name + "__99999",
        name[:at] + dice.choice(("é", "\udcff", " ", ".", "-", "{{")) + name[at:], name * 50,
        dice.choice(("AXOLOTL_", "SFT_", "AXOLOTL___", "AXOLOTL", "SFT")),
    )  # fmt: skip
    made[dice.choice(slips)] = dice.choice(WORDS)


def _part(made: Environment, dice: random.Random, place: Path) -> None:
    """A value inside a value, often beside the whole."""
    key = dice.choice([*KEYS, "datasets", "datasets"])
    parts = dice.choice((("0", "path"), ("0", "type", "format"), ("1", "type"), ("7", "path"),
                         ("0",), ("x",), ("enabled",), ("fsdp_version",), ("temperature",)))  # fmt: skip
    made["__".join([_name(key), *parts]).upper()] = dice.choice((*WORDS, "1", "[]", "null"))


def _document(made: Environment, dice: random.Random, place: Path) -> None:
    keys = dice.sample(KEYS, dice.randint(0, 3))
    content: Any = {key: value(TYPES, TYPES.fields[key], dice) for key in keys}
    content = dice.choice((content, content, content, keys, "text", None, {"lora__r": 1}))
    text = dice.choice((json.dumps(content), json.dumps(content), *_JSON, *AWKWARD, "9" * 5000))
    data = dice.choice((text.encode(errors="surrogateescape"), b"\xff\xfe" + text.encode("utf-16")))
    if dice.random() < 0.5:
        made["SFT_TRAINER_CONFIG_JSON_ENV_VAR"] = base64.b64encode(data).decode()
    else:
        file = place / dice.choice(("config.json", "config.yaml", "config"))
        file.write_bytes(data)
        made["SFT_TRAINER_CONFIG_JSON_PATH"] = str(file)


def _foreign(made: Environment, dice: random.Random, place: Path) -> None:
    made |= _LINKS
    made |= {"WANDB_MODE": dice.choice(WORDS), "PATH": "/bin", "RUNPOD_POD_ID": ""}
    made[dice.choice(upstream.axolotl()["reserved"])] = dice.choice(AWKWARD)


_STEPS = (_valid, _common, _garbage, _huge, _odd_name, _part, _document, _foreign)
_WEIGHTS = (6, 6, 3, 0.3, 1, 1.5, 1.5, 1)


def _name(key: str) -> str:
    return f"AXOLOTL_{key.upper()}"

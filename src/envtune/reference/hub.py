""".runpod/hub.json and .runpod/tests.json: the form that RunPod's Hub shows, and what it tries.

Each field of the form is a variable; its type, default and meaning are the setting's own.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from envtune.reference import example, words
from envtune.reference.runpod import DISK, variables
from envtune.settings import axolotl_keys
from envtune.settings.own import OWN, profiles
from envtune.settings.own.place import ENDING
from envtune.settings.schema import Node
from envtune.settings.sources import AXOLOTL

# What torch here is built for; a host's driver knows that or more.
_CUDA = ["13.0"]
_TITLE = "envtune: fine-tuning by Axolotl"
_ABOUT = (
    "Environment variables in, a fine-tuned model out: trains, checks, publishes, stops the pod."
)
_PROFILE = "SFT_PROFILE"
_AFTER = ("SFT_PUSH_TO", "SFT_SERVE", "SFT_MERGE")
_SECRETS = {
    "HF_TOKEN": "The Hub's token, for gated models and to publish; name a secret of your account",
    "WANDB_API_KEY": "Turns Weights & Biases on; name a secret of your account",
    "VLLM_API_KEY": "The key that a server asks for",
}
_SECONDS = 900
# What the conventions of RunPod's own Axolotl pods try first, by its variables.
TESTS: Mapping[str, Mapping[str, str]] = {
    "minimal_configuration_test": {
        "AXOLOTL_MICRO_BATCH_SIZE": "1",
        "AXOLOTL_NUM_EPOCHS": "1",
        "AXOLOTL_MAX_STEPS": "5",
    },
    "memory_constraint_test": {
        "AXOLOTL_ADAPTER": "lora",
        "AXOLOTL_LOAD_IN_8BIT": "true",
        "AXOLOTL_GRADIENT_CHECKPOINTING": "true",
        "AXOLOTL_MICRO_BATCH_SIZE": "1",
        "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "16",
        "AXOLOTL_MAX_STEPS": "5",
    },
}


def text() -> str:
    """hub.json."""
    config = {
        "runsOn": "GPU",
        "containerDiskInGb": DISK,
        "gpuCount": 1,
        "gpuIds": "ADA_24",
        "allowedCudaVersions": _CUDA,
        "presets": [
            {"name": name, "defaults": {_PROFILE: name}} for name in sorted(profiles.PROFILES)
        ],
        "env": list(_fields()),
    }
    about = {"title": _TITLE, "description": _ABOUT, "type": "pod", "category": "language"}
    return _json({**about, "config": config})


def tests_text() -> str:
    """tests.json."""
    tests = [
        {"name": name, "input": dict(settings), "timeout": _SECONDS * 1000}
        for name, settings in TESTS.items()
    ]
    env = {**variables(), **TESTS["minimal_configuration_test"]}
    config = {
        "gpuTypeId": "NVIDIA GeForce RTX 4090",
        "gpuCount": 1,
        "allowedCudaVersions": _CUDA,
        "env": [{"key": key, "value": value} for key, value in env.items()],
    }
    return _json({"tests": tests, "config": config})


def _json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"


def _fields() -> Iterator[dict[str, Any]]:
    given = variables()
    model, *others = example.REQUIRED
    yield _field(model, "A model of the Hub", "huggingface", default=example.REQUIRED[model])
    for name in others:
        yield _field(name, "What to train on, a JSON list", "string", default=given[name])
    for name in (_PROFILE, *ENDING, *_AFTER):
        own = OWN[name]
        default = given.get(name, "" if own.default is None else words.shorn(own.default))
        yield _field(name, own.meaning, **_input(own.node), default=default)
    for key in example.COMMON:
        node = axolotl_keys.schema().fields[key]
        made = _input(node, axolotl_keys.schema().defs)
        yield _field(
            AXOLOTL + key.upper(),
            words.meaning(node) or f"Axolotl's {key}",
            **made,
            default="",
            advanced=True,
        )
    for name, meaning in _SECRETS.items():
        yield _field(name, meaning, "string", default="", advanced=True)


def _field(key: str, meaning: str, type: str, **more: Any) -> dict[str, Any]:
    """An empty text counts as not set, so that a field which nobody fills changes nothing."""
    name = key.removeprefix(AXOLOTL).removeprefix("SFT_").replace("_", " ").capitalize()
    return {"key": key, "input": {"name": name, "type": type, "description": meaning, **more}}


def _input(node: Node, defs: Mapping[str, Node] | None = None) -> dict[str, Any]:
    """Options where few words are allowed. Anything else is text: a number that nobody sets has
    to stay empty, which neither a number nor a switch of the form can."""
    kinds = list(words.options(node, defs or {}))
    values = [value for value in words.members(node, defs or {}) if value is not None]
    if not values and any(kind.get("type") == "boolean" for kind in kinds):
        values = [True, False]
    if not values or len(values) > words.LISTED:
        return {"type": "string"}
    shown = ["", *map(words.shorn, values)]
    return {"type": "string", "options": [{"label": v or "not set", "value": v} for v in shown]}

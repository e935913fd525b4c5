"""docs/settings.md: the template's prose around tables of everything that can be set."""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from envtune.machine.hardware import Gpu, Machine
from envtune.reference import groups, mappings, markdown, words
from envtune.resolve import owned, rules
from envtune.resolve.config import Facts, Value
from envtune.resolve.facts import DataFacts, ModelFacts
from envtune.settings import axolotl_keys, dialects, loading, retired, runtime, sources, upstream
from envtune.settings.own import OWN, PLUGIN_KEYS, profiles
from envtune.settings.schema import Node, Schema

_LAYERS = {
    "profile": "the set of values that `SFT_PROFILE` names",
    "template": "the YAML file of defaults that `SFT_TEMPLATE` names",
    "file": "the document that `SFT_TRAINER_CONFIG_JSON_PATH` names, or the industrial pipeline's "
    "two: `SFT_DATASET_CONFIG`, `SFT_TRAINING_CONFIG`",
    "base64": "the JSON in `SFT_TRAINER_CONFIG_JSON_ENV_VAR`",
    "SFT_": "variables of the SFT trainer and envtune's own",
    "AXOLOTL_": "variables with Axolotl's keys",
    "command line": "`NAME=VALUE` after a verb, e.g. `envtune check AXOLOTL_LORA_R=8`",
}
# How a value is written, and what a reader should see in it.
_WRITTEN = (
    ("AXOLOTL_MAX_STEPS", "1_000", "numbers as Python writes them; no `nan`, no `inf`"),
    ("AXOLOTL_LEARNING_RATE", "2e-4", ""),
    ("AXOLOTL_LOAD_IN_4BIT", "yes", "`true/false`, `yes/no`, `on/off` in any case"),
    ("AXOLOTL_BF16", "1", "`1` and `0` too, where no number is allowed"),
    ("AXOLOTL_ADAPTER", "null", "`null`, `none` or `~`: nothing, against a default"),
    ("AXOLOTL_WANDB_NAME", "2024", "text stays text"),
    ("AXOLOTL_LORA_TARGET_MODULES", "q_proj,v_proj", "a list of scalars, by commas"),
    ("AXOLOTL_LORA_TARGET_MODULES", '["q_proj"]', "or as JSON, like every list and object"),
    ("AXOLOTL_DATASETS__0__PATH", "data.jsonl", "`__` goes inside: into the first data set"),
    ("AXOLOTL_SPECIAL_TOKENS__PAD_TOKEN", "<pad>", "or to a name"),
    ("AXOLOTL_LORA_R", "", "an empty variable counts as not set"),
)
_GIB = 2**30
_MACHINES = (
    Machine((), 8, 64 * _GIB),
    Machine((Gpu("NVIDIA H100 80GB HBM3", 80 * _GIB, (9, 0)),), 16, 128 * _GIB),
)

Listing = Callable[[Node, Mapping[str, Node]], list[Any]]


def text() -> str:
    """The page, in Markdown."""
    return markdown.page("settings.md.j2", _content())


def _content() -> dict[str, Any]:
    snapshot, types, past = upstream.axolotl(), axolotl_keys.schema(), _past()
    return {
        "version": snapshot["version"],
        "trainer_version": upstream.trainer()["version"],
        "precedence": [(layer, _LAYERS[layer]) for layer in sources.PRECEDENCE],
        "written": list(_written()),
        "own": [(title, [_own(name) for name in names]) for title, names in groups.own()],
        "profiles": [(f"`{name}`", _pairs(p)) for name, p in profiles.PROFILES.items()],
        "dialects": {
            d.name: (mappings.rows if d.sections else mappings.own_rows)(d.table)
            for d in dialects.DIALECTS
        },
        "silent": {d.name: mappings.silent(d.table) for d in dialects.DIALECTS},
        "passing": sorted(upstream.trainer()["flags"].keys() - dialects.TRAINER.table.keys()),
        "keys": [
            (f"`{key}`", words.kind(node, types.defs), words.meaning(node))
            for key, node in sorted(types.fields.items())
            if key not in past
        ],
        "past": [(f"`{key}`", today) for key, today in sorted(past.items())],
        "inside": _each(types, words.names, at_least=1),
        "members": _each(types, words.members, at_least=words.LISTED + 1),
        "plugin_keys": PLUGIN_KEYS,
        "owned": [(f"`{key}`", reason) for key, reason in owned.REFUSED.items()],
        "defaults": list(_defaults()),
        "secrets": sources.SECRET_FILES,
        "renamed": [(f"`{old}`", f"`{new}`") for old, new in runtime.RENAMED.items()],
        "reserved": snapshot["reserved"],
    }


def _written() -> Iterator[tuple[str, str, str]]:
    for name, value, note in _WRITTEN:
        read = loading.load(sources.read((), {name: value})).axolotl
        shown = ", ".join(f"{key}: {json.dumps(s.value)}" for key, s in read.items())
        yield f"`{name}={value}`", f"`{shown}`" if shown else "", note


def _own(name: str) -> tuple[str, str, str, str]:
    own = OWN[name]
    default = "" if own.default is None else f"`{words.shorn(own.default)}`"
    return f"`{name}`", words.own_kind(own.node), default, own.meaning


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"`{key}={words.shorn(value)}`" for key, value in values.items())


def _past() -> dict[str, str]:
    """Axolotl's keys of the past, and what is said today."""
    return {
        **{old: f"taken as `{new}`" for old, new in retired.RENAMED.items()},
        **{old: f"`true` is taken as `{k}: {v}`" for old, (k, v) in retired.FLAGS.items()},
        **{old: f"refused: {instead}" for old, instead in retired.REMOVED.items()},
    }


def _each(types: Schema, listed: Listing, at_least: int) -> list[tuple[list[str], list[str]]]:
    """Keys, and what `listed` finds in the node of each, where that is enough to be told."""
    found: dict[tuple[str, ...], list[str]] = {}
    for key, node in sorted(types.fields.items()):
        found.setdefault(tuple(map(str, listed(node, types.defs))), []).append(key)
    return [(keys, list(several)) for several, keys in found.items() if len(several) >= at_least]


def _defaults() -> Iterator[list[str]]:
    """What the rules choose for a model and a data set, on a CPU and on a GPU."""
    sides = [_chosen(machine) for machine in _MACHINES]
    for key in dict.fromkeys(key for side in sides for key in side):
        found = [side.get(key) for side in sides]
        reasons = dict.fromkeys(value.reason for value in found if value)
        shown = (f"`{words.shorn(value.value)}`" if value else "" for value in found)
        yield [f"`{key}`", *shown, " / ".join(reasons)]


def _chosen(machine: Machine) -> dict[str, Value]:
    facts = Facts(
        machine=machine,
        model=ModelFacts("model", local=True),
        data=(DataFacts("rows.jsonl", local=True, columns=("instruction", "output")),),
        device="cuda" if machine.gpus else "cpu",
    )
    given = {"AXOLOTL_BASE_MODEL": "model", "AXOLOTL_DATASETS__0__PATH": "rows.jsonl"}
    config = rules.resolve(loading.load(sources.read((), given)), facts)
    ruled = dict(rules.RULES)
    return {k: v for k, v in config.axolotl.items() if k in ruled and v.source == rules.DEFAULT}

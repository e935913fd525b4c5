"""Variable -> YAML -> Axolotl's own fields, for every key: equal, and of the same type."""

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Mapping
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from axolotl import integrations
from axolotl.utils.schemas import datasets
from axolotl.utils.schemas.config import AxolotlInputConfig
from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaValidator

from envtune.engine.rows import RowArgs
from envtune.engine.snapshots import axolotl_schema
from envtune.resolve import owned
from envtune.resolve.config import RunConfig
from envtune.resolve.rules import NEVER_NULL, resolve
from envtune.settings import axolotl_keys, retired, typed, upstream
from envtune.settings.paths import DATASETS
from envtune.settings.schema import Node
from envtune.settings.spelling import env_file
from envtune.supervise import templates
from tests.plausible import Spelled, spelled
from tests.unit.builders import MODEL_AND_DATA, load, make_facts

TYPES = axolotl_keys.schema()

# What Axolotl itself makes of a value.
TRANSLATED: dict[str, dict[Any, Any]] = {
    "fix_untrained_tokens": {False: 0, True: 1},
    "gradient_checkpointing": {"offload": True, "offload_disk": True},
    "image_resize_algorithm": {"bilinear": 2, "bicubic": 3, "lanczos": 1},
    "kd_trainer": {False: 0.0, True: 1.0},
    "lora_target_modules": {"word": ["word"]},
    "save_safetensors": {None: True},
    "seed": {None: 42},
}

# Keys whose validators in Axolotl take less than their type says, and a value that they take.
NARROWER: dict[str, tuple[Spelled, ...]] = {
    "added_tokens_overrides": (('{"128041": "<|a|>"}', {"128041": "<|a|>"}),),
    "attn_implementation": (("sdpa", "sdpa"),),
    "datasets": (('[{"path": "a", "type": "alpaca"}]', [{"path": "a", "type": "alpaca"}]),),
    "SFTDataset.chat_template": (),
    "diffusion": (('{"min_mask_ratio": 0.05, "eps": 0.5}', {"min_mask_ratio": 0.05, "eps": 0.5}),),
    "diffusion.max_mask_ratio": (("0.95", 0.95),),
    "diffusion.min_mask_ratio": (("0.05", 0.05),),
    "fsdp_config.auto_wrap_policy": (),
    "fsdp_config": (('{"fsdp_version": 2}', {"fsdp_version": 2}),),
    "max_memory": (('{"0": "20GiB", "cpu": 7}', {"0": "20GiB", "cpu": 7}),),
    "neftune_noise_alpha": (("5", 5.0),),
    "save_safetensors": (),
    "torch_compile_options": (('{"max_autotune": true}', {"max_autotune": True}),),
}

# Keys that reach Axolotl by other ways: envtune's own, what a run takes out of the YAML, what
# Axolotl has removed (refused, or null), and what it reads from its environment.
ELSEWHERE = {
    *owned.ours({}, None),
    *owned.REFUSED,
    "resume_from_checkpoint",
    *retired.REMOVED,
    *(name.removeprefix("AXOLOTL_").lower() for name in upstream.axolotl()["reserved"]),
}

# Keys that Axolotl has left behind, which are translated on the way.
PAST = {key for key in TYPES.fields if retired.today(key, None) is not None} - ELSEWHERE


def _fields(model: type[BaseModel]) -> SchemaValidator:
    """A model's fields with their types and validators, without its rules over several keys:
    those would refuse most keys that stand alone."""
    schema: Any = model.__pydantic_core_schema__
    definitions = schema.get("definitions", [])
    while schema["type"] != "model-fields":
        schema = schema["schema"]
    return SchemaValidator({"type": "definitions", "schema": schema, "definitions": definitions})


def _models() -> Iterator[type[BaseModel]]:
    """Axolotl's own model and those that plugins add to it, ours among them."""
    yield AxolotlInputConfig
    yield RowArgs
    for folder in sorted(path.parent for path in Path(integrations.__path__[0]).glob("*/args.py")):
        for _, args in axolotl_schema._plugin_classes(folder):
            yield getattr(axolotl_schema._load(folder / "args.py"), args)


# Each key as YAML spells it: its field, and the fields that it belongs to.
FIELDS = {
    field.alias or name: (name, fields)
    for model in reversed(list(_models()))
    for fields in [_fields(model)]
    for name, field in model.model_fields.items()
}


def configured(environ: Mapping[str, str]) -> RunConfig:
    """What the environment resolves to. Its data sets lie elsewhere: nothing is filled in."""
    parts = any(name.startswith("AXOLOTL_DATASETS__") for name in environ)
    base = {name: text for name, text in MODEL_AND_DATA.items() if name not in environ}
    given = load({k: v for k, v in base.items() if k != "AXOLOTL_DATASETS" or not parts} | environ)
    return resolve(
        retired.translated(given),
        make_facts(columns=_none(given, "datasets"), test_columns=_none(given, "test_datasets")),
    )


def _none(given: typed.Settings, key: str) -> list[tuple[()]]:
    """No columns for each data set of a key."""
    return [()] * len((given.axolotl[key].value if key in given.axolotl else None) or ())


def in_axolotl(key: str, value: Any) -> Any:
    """`value`, read from the YAML, as Axolotl's field has it."""
    name, fields = FIELDS[key]
    made, _, _ = fields.validate_python({"base_model": "m", "learning_rate": 1.0, key: value})
    return made[name]


def typed(given: Any, wanted: Any) -> str:
    """`given` as a text that is equal where value and type are.

    Enumerations are their values; of a model only what was wanted counts, since Axolotl
    adds defaults; names are text, since JSON has no others.
    """
    if isinstance(given, Enum):
        given = given.value
        given = given if isinstance(given, str | int) else str(given).removeprefix("torch.")
    if isinstance(given, BaseModel):
        given = {name: getattr(given, name) for name in given.model_fields_set & wanted.keys()}
    if isinstance(given, dict) and isinstance(wanted, dict):
        found = {str(name): typed(item, wanted.get(str(name))) for name, item in given.items()}
        return str(sorted(found.items()))
    if isinstance(given, list | tuple) and isinstance(wanted, list):
        padded = [*wanted, *[None] * len(given)]
        return str([typed(item, padded[index]) for index, item in enumerate(given)])
    return repr(given)


def meant(name: str, rows: list[Spelled]) -> list[Spelled]:
    """Texts that nobody wrote into an env file by mistake: the others are refused or mended."""
    said = [row for row in rows if not env_file.slipped(name, row[0])]
    return [row for row in said if not isinstance(row[1], dict) or not any(map(dated, row[1]))]


def dated(name: str) -> bool:
    """Whether a name of fsdp_config is today's with a prefix, or one that Axolotl drops."""
    return (name != "fsdp_version" and name.startswith(retired.FSDP)) or name in retired.FSDP1


def rounds(rows: Mapping[str, list[Spelled]]) -> Iterator[dict[str, Spelled]]:
    """Environments of one value for each variable, until every value had its turn."""
    for index in range(max(map(len, rows.values()))):
        yield {name: row[index] for name, row in rows.items() if index < len(row)}


def arrival(name: str, read: Callable[[], Any], wanted: Any) -> str:
    """`arrived`, `narrower` (Axolotl's own validator takes less), `removed`, or what differs."""
    try:
        got = read()
    except DeprecationWarning:
        return "removed"
    except (ValidationError, TypeError) as error:
        return "narrower" if name in NARROWER else str(error)
    if typed(got, wanted) == typed(wanted, wanted):
        return "arrived"
    return f"{typed(wanted, wanted)} is {typed(got, wanted)}"


def ended(ends: Mapping[str, Counter[str]]) -> None:
    """Fails unless every name has arrived and nothing arrived as something else."""
    total = sum(ends.values(), Counter[str]())
    print(f"{len(ends)} names:", dict(total))
    known = {"arrived", "narrower", "removed", "left out"}
    wrong = {name: end.keys() - known for name, end in ends.items() if end.keys() - known}
    assert not wrong, wrong
    # Of what Axolotl has removed, and refuses by name, null or false still arrives.
    assert not [name for name, end in ends.items() if not end["arrived"]]


def test_every_key_arrives_in_axolotl_as_it_was_written(dice: random.Random) -> None:
    rows = {
        key: meant(f"AXOLOTL_{key}", [*spelled(TYPES, node, dice), *NARROWER.get(key, ())])
        for key, node in TYPES.fields.items()
        if key not in {*ELSEWHERE, *DATASETS, *PAST}
    }
    ends: dict[str, Counter[str]] = {key: Counter() for key in rows}
    for given in rounds(rows):
        config = configured({f"AXOLOTL_{key.upper()}": text for key, (text, _) in given.items()})
        written = yaml.safe_load(templates.render_axolotl(config))
        for key, (_, wanted) in given.items():
            if wanted is None and key in NEVER_NULL:
                ends[key]["null" if key in written else "left out"] += 1
                continue
            plain = wanted if isinstance(wanted, Hashable) else None
            made = TRANSLATED.get(key, {}).get(plain, wanted)
            ends[key][arrival(key, partial(in_axolotl, key, written[key]), made)] += 1
    assert len(ends) >= len(TYPES.fields) - len(ELSEWHERE) - len(DATASETS) - len(PAST)
    ended(ends)


@pytest.mark.parametrize("key", sorted(PAST))
def test_every_key_of_the_past_arrives_as_todays(key: str, dice: random.Random) -> None:
    ends = {key: Counter[str]()}
    for text, wanted in meant(f"AXOLOTL_{key}", spelled(TYPES, TYPES.fields[key], dice)):
        written = configured({f"AXOLOTL_{key.upper()}": text}).plain()
        for new, value in (retired.today(key, wanted) or {}).items():
            ends[key][arrival(new, partial(in_axolotl, new, written[new]), value)] += 1
        assert key not in written or key in retired.today(key, wanted)
    ended(ends)


KINDS = [
    (key, kind["$ref"].rsplit("/", 1)[1])
    for key in DATASETS
    for option in TYPES.fields[key]["anyOf"]
    for kind in option.get("items", {}).get("anyOf", ())
]


def in_data_set(kind: str, name: str, item: Mapping[str, Any]) -> Any:
    """A name of a data set in Axolotl's own model, which moves the two old ones."""
    made = getattr(datasets, kind)(**item)
    if name in ("message_field_role", "message_field_content") and item[name] is not None:
        return made.message_property_mappings[name.removeprefix("message_field_")]
    return getattr(made, name)


def for_data_set(key: str, name: str, node: Node, dice: random.Random) -> list[Spelled]:
    """Values of one kind that no other kind of the same list reads as a list or object."""
    merged = TYPES.at(TYPES.fields[key], ["0", name])[1]
    plain = TYPES._kinds(merged) == TYPES._kinds(node)
    rows = meant(f"AXOLOTL_{key}__0__{name}", list(spelled(TYPES, node, dice)))
    return [(text, v) for text, v in rows if plain or v != text or not set(text) & set(",[{")]


@pytest.mark.parametrize(("key", "kind"), KINDS)
def test_every_name_in_a_data_set_arrives(key: str, kind: str, dice: random.Random) -> None:
    """One data set a name. Axolotl itself chooses the kind by `rl`, so each meets its own."""
    properties = TYPES.defs[kind]["properties"]
    rows = {name: for_data_set(key, name, node, dice) for name, node in properties.items()}
    ends: dict[str, Counter[str]] = {name: Counter() for name in rows}
    for given in rounds(rows):
        names = {name: f"AXOLOTL_{key}__{i}__{name}".upper() for i, name in enumerate(given)}
        config = configured({names[name]: text for name, (text, _) in given.items()})
        written = yaml.safe_load(templates.render_axolotl(config))[key]
        for item, (name, (_, wanted)) in zip(written, given.items(), strict=True):
            made = wanted
            if kind == "SyntheticDataset":
                item["type"] = item["type"] if name == "type" else "_synthetic"
            if name == "message_property_mappings":
                made = {"role": "role", "content": "content", **(wanted or {})}
            read = partial(in_data_set, kind, name, item)
            ends[name][arrival(f"{kind}.{name}", read, made)] += 1
    ended(ends)


OBJECTS = [
    (key, option)
    for key, node in TYPES.fields.items()
    for option in TYPES._options(node)
    if option.get("properties") and key not in ELSEWHERE
]


@pytest.mark.parametrize(("key", "node"), OBJECTS, ids=[key for key, _ in OBJECTS])
def test_every_name_in_an_object_arrives(key: str, node: Node, dice: random.Random) -> None:
    rows = {
        name: meant(
            f"AXOLOTL_{key}__{name}",
            [*spelled(TYPES, below, dice), *NARROWER.get(f"{key}.{name}", ())],
        )
        for name, below in node["properties"].items()
        if not dated(name)
    }
    ends: dict[str, Counter[str]] = {name: Counter() for name in rows}
    for given in rounds(rows):
        environ = {f"AXOLOTL_{key.upper()}__{n.upper()}": text for n, (text, _) in given.items()}
        written = yaml.safe_load(templates.render_axolotl(configured(environ)))[key]
        for name, (_, wanted) in given.items():
            beside = dict.fromkeys(node.get("required", ()), "needed")
            read = partial(in_axolotl, key, {**beside, name: written[name]})
            ends[name][arrival(f"{key}.{name}", read, {name: wanted})] += 1
    ended(ends)

"""Derives what the control plane knows of accelerate and of transformers' layers.

`accelerate.json` holds the flags of `accelerate launch` and the keys of its configuration
file, from accelerate's own parser and class. `transformers.json` holds the layer that FSDP
wraps, by model type. Run by `make generate`, like `snapshot`.
"""

import argparse
import importlib.metadata
import logging
from typing import Any

_TYPES: dict[Any, str] = {int: "integer", float: "number"}  # text to accelerate: all others
# Enough for every kind of layer of a hybrid model to occur.
_DEPTH = 8


def accelerate() -> dict[str, Any]:
    """`version`, `flags` (long name -> JSON schema node) and `file` (keys of its YAML)."""
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser

    actions = launch_command_parser()._actions
    return {
        "version": importlib.metadata.version("accelerate"),
        "flags": {name: node for a in actions if (name := _long(a)) and (node := _node(a))},
        "file": sorted(ClusterConfig.__dataclass_fields__),
    }


def _long(action: argparse.Action) -> str:
    """The long name with underscores, or nothing where there is none."""
    names = [name[2:] for name in action.option_strings if name.startswith("--")]
    return names[0].replace("-", "_") if names and names[0] != "help" else ""


def _node(action: argparse.Action) -> dict[str, Any]:
    text = {"description": " ".join((action.help or "").split())}
    if action.nargs == 0:
        return {"type": "boolean", **text}
    if action.choices:
        return {"enum": list(action.choices), **text}
    return {"type": _TYPES.get(action.type, "string"), **text}


def transformers() -> dict[str, Any]:
    """`version` and `layers`: model type -> class names, with commas, as FSDP takes them."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    logging.disable()  # each model warns of what its empty configuration lacks
    try:
        found = {kind: layers(kind) for kind in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}
    finally:
        logging.disable(logging.NOTSET)
    return {
        "version": importlib.metadata.version("transformers"),
        "layers": {kind: names for kind, names in found.items() if names},
    }


def layers(kind: str) -> str:
    """The classes that a causal model of this type must not split and does contain.

    Transformers lists them for a whole family: a language model may name the vision blocks
    of its siblings, for which accelerate would look in vain and raise. Empty where the
    type cannot be built from its default configuration; accelerate then looks itself.
    The classes are transformers' own by name: fla, which some models import, puts others
    into its registry under types such as `bitnet`.
    """
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    try:
        config = getattr(transformers, CONFIG_MAPPING_NAMES[kind])()
        for part in (config, getattr(config, "text_config", None)):
            if part is not None and isinstance(getattr(part, "num_hidden_layers", None), int):
                part.num_hidden_layers = min(part.num_hidden_layers, _DEPTH)
        with torch.device("meta"):
            model = _model(getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]), config)
    except Exception as error:  # default configurations of 176 authors
        print(f"{kind}: no layer known ({type(error).__name__})")
        return ""
    there = {type(module).__name__ for module in model.modules()}
    return ",".join(sorted(there & set(model._no_split_modules or ())))


def _model(kind: Any, config: Any) -> Any:
    """A causal model of this class: of the text part where the type is of several parts."""
    if kind.config_class == config.sub_configs.get("text_config"):
        config = config.get_text_config()
    return kind._from_config(config)

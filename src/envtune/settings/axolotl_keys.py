"""What Axolotl's keys take: its own schema, stricter where it lets pass what fails later."""

from envtune.settings import retired, upstream
from envtune.settings.own import PLUGIN_KEYS
from envtune.settings.schema import DROPPED, Node, Schema

_FLAG: Node = {"anyOf": [{"type": "boolean"}, {"type": "null"}]}
_POSITIVE = {"type": "integer", "minimum": 1}
_SHARE = {"type": "number", "minimum": 0, "maximum": 1}

# Where Axolotl takes what fails hours later, trains at a wrong rate or divides by zero.
_STRICTER: dict[str, Node] = {
    "learning_rate": {"type": "number", "exclusiveMinimum": 0},
    "num_epochs": {"type": "number", "exclusiveMinimum": 0},
    "micro_batch_size": _POSITIVE,
    "gradient_accumulation_steps": _POSITIVE,
    "sequence_len": _POSITIVE,
}

# The same, and null is fine.
_NARROWER: dict[str, Node] = {
    "batch_size": _POSITIVE,
    "save_total_limit": {"type": "integer", "minimum": 0},
    "lora_r": _POSITIVE,
    "lora_alpha": _POSITIVE,
    "lora_dropout": _SHARE,
    "max_grad_norm": {"type": "number", "minimum": 0},
    "save_safetensors": {"const": True},
    "large_head_attention": {"enum": ["auto", "sdpa", "triton_flash"]},
    "swanlab_mode": {"enum": ["cloud", "local", "offline", "disabled"]},
    "neftune_noise_alpha": {"type": "number", "exclusiveMinimum": 0},
    "val_set_size": {"type": "number", "minimum": 0},
    "warmup_ratio": _SHARE,
    "warmup_steps": {"type": "integer", "minimum": 0},
    "weight_decay": {"type": "number", "minimum": 0},
}


# Switches that Axolotl types as numbers; its examples say `true`.
_SWITCHES = ("fix_untrained_tokens", "kd_trainer")


def schema() -> Schema:
    """Axolotl's schema and its bundled plugins', stricter where Axolotl is too lenient."""
    snapshot = upstream.axolotl()
    fields, defs = {**snapshot["fields"], **PLUGIN_KEYS}, dict(snapshot["defs"])
    for plugin in snapshot["plugins"].values():
        fields |= plugin["fields"]
        defs |= plugin["defs"]
    nullable = {key: {"anyOf": [node, {"type": "null"}]} for key, node in _NARROWER.items()}
    for key, node in {**_STRICTER, **nullable}.items():
        fields[key] = {**node, "description": fields[key].get("description", "")}
    for key in _SWITCHES:
        fields[key] = {**fields[key], "anyOf": [{"type": "boolean"}, *fields[key]["anyOf"]]}
    for old, new in retired.RENAMED.items():
        fields[old] = fields[new]
    defs["FSDPConfig"] = _prefixed(defs["FSDPConfig"])
    gone = dict.fromkeys(retired.REMOVED.keys() - fields.keys(), _FLAG)
    return Schema({**fields, **gone}, defs)


def _prefixed(node: Node) -> Node:
    """FSDP's keys, which Axolotl takes with their old prefix too, and those of FSDP1."""
    names = {**node["properties"], **{name: {DROPPED: True} for name in retired.FSDP1}}
    return {**node, "properties": {**names, **{retired.FSDP + name: names[name] for name in names}}}

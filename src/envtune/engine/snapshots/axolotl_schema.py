"""Derives the committed snapshots of upstream from the installed packages.

Run by `make generate` inside the train environment. What it writes is data that the
control plane can read without torch: Axolotl's settings and those of its plugins as JSON
schemas, and the environment variables that Axolotl reads for itself and that must never
become settings.
"""

import ast
import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from envtune.engine.snapshots import accelerate_flags, instruct_types

UPSTREAM = Path(__file__).resolve().parents[2] / "settings" / "upstream"

# Keys of a JSON schema node that say something about the type or help a reader.
_KEPT = {
    "$ref", "type", "anyOf", "items", "prefixItems",
    "properties", "additionalProperties", "enum", "const",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minItems", "maxItems",
    "pattern", "required", "description", "deprecated",
}  # fmt: skip


def axolotl_schema() -> dict[str, Any]:
    """Axolotl's input model as JSON schema: `fields`, `defs`, `required`, `version`."""
    from axolotl.utils.schemas.config import AxolotlInputConfig

    schema = _schema(AxolotlInputConfig)
    fields = _prune_all(schema["properties"])
    for key, allowed in _accepted().items():
        described = {k: v for k, v in fields[key].items() if k == "description"}
        fields[key] = {"anyOf": [*allowed, {"type": "null"}], **described}
    return {
        "version": importlib.metadata.version("axolotl"),
        "required": sorted(schema["required"]),
        "fields": fields,
        "defs": _prune_all(schema["$defs"]),
    }


def _schema(model: Any) -> dict[str, Any]:
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """Axolotl's fields hold torch dtypes and enums of them, which pydantic cannot name."""

        def encode_default(self, dft: Any) -> Any:
            return str(dft)

        def enum_schema(self, schema: Any) -> dict[str, Any]:
            values = [member.value for member in schema["members"]]
            return {"enum": [_written(value) for value in values]}

    schema: dict[str, Any] = model.model_json_schema(schema_generator=Generator, by_alias=True)
    return schema


def _accepted() -> dict[str, list[dict[str, Any]]]:
    """The names that training takes where Axolotl's own type is any text.

    Its builders hand a name that is none of their own to transformers, which knows these.
    """
    from axolotl.utils.schemas.enums import CANONICAL_ATTN_IMPLS, CustomSupportedOptimizers
    from transformers import SchedulerType
    from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy
    from transformers.training_args import OptimizerNames

    def names(*enums: Any, more: tuple[str, ...] = ()) -> dict[str, Any]:
        return {"enum": sorted({*(m.value for enum in enums for m in enum), *more})}

    return {
        "optimizer": [names(OptimizerNames, CustomSupportedOptimizers)],
        "lr_scheduler": [names(SchedulerType, more=("one_cycle", "rex"))],
        "save_strategy": [names(SaveStrategy)],
        "eval_strategy": [names(IntervalStrategy)],
        "hub_strategy": [names(HubStrategy)],
        "attn_implementation": [
            {"enum": sorted(CANONICAL_ATTN_IMPLS)},
            {"type": "string", "pattern": "/", "title": "a kernel of the Hub, <owner>/<name>"},
        ],
    }


def axolotl_packing() -> list[str]:
    """The attention implementations that keep packed documents apart."""
    from axolotl.utils.schemas.config import AxolotlInputConfig
    from axolotl.utils.schemas.enums import ATTN_IMPLS_SUPPORTING_PACKING, CANONICAL_ATTN_IMPLS

    def isolates(name: str) -> bool:
        config = AxolotlInputConfig.model_construct(attn_implementation=name)
        return bool(config.attn_decontaminates_packing)

    return sorted(filter(isolates, CANONICAL_ATTN_IMPLS | ATTN_IMPLS_SUPPORTING_PACKING))


def axolotl_plugins() -> dict[str, Any]:
    """The bundled plugins by class path: the `fields` that each adds, and their `defs`.

    Their source is read, not imported: some import packages that only a GPU's machine has.
    """
    import axolotl.integrations

    root = Path(axolotl.integrations.__path__[0])
    plugins = {}
    for folder in sorted(path.parent for path in root.glob("*/args.py")):
        for plugin, args in _plugin_classes(folder):
            schema = _schema(getattr(_load(folder / "args.py"), args))
            plugins[f"axolotl.integrations.{folder.name}.{plugin}"] = {
                "fields": _prune_all(schema["properties"]),
                "defs": _prune_all(schema.get("$defs", {})),
            }
    return plugins


def _plugin_classes(folder: Path) -> Iterator[tuple[str, str]]:
    """The plugin classes in a folder, each with the name of its class of arguments."""
    classes = [
        node
        for path in sorted(folder.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and any(getattr(base, "id", "") == "BasePlugin" for base in node.bases)
    ]
    for node in classes:
        named = re.findall(r"return '[\w.]+\.(\w+)'", ast.unparse(_method(node, "get_input_args")))
        yield node.name, named[-1]


def _method(node: ast.ClassDef, name: str) -> ast.AST:
    return next(n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == name)


def _load(path: Path) -> Any:
    """A module of a file, without its package."""
    name = f"envtune_args_of_{path.parent.name}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _written(value: Any) -> str | int | float:
    """A member of an enumeration as a configuration spells it: `int8` for torch.int8."""
    return value if isinstance(value, str | int | float) else str(value).removeprefix("torch.")


def axolotl_reserved() -> list[str]:
    """The `AXOLOTL_*` environment variables that Axolotl's own source reads."""
    spec = importlib.metadata.distribution("axolotl")
    sources = [spec.locate_file(f) for f in spec.files or [] if str(f).endswith(".py")]
    pattern = re.compile(r"""["'](AXOLOTL_[A-Z0-9_]+)["']""")
    names = {name for path in sources for name in pattern.findall(Path(str(path)).read_text())}
    return sorted(names)


def trainer_flags() -> dict[str, Any]:
    """The flags of transformers' TrainingArguments with their defaults."""
    import dataclasses

    from transformers import TrainingArguments

    flags = {f.name: _default(f) for f in dataclasses.fields(TrainingArguments)}
    return {"version": importlib.metadata.version("transformers"), "flags": flags}


def _default(field: Any) -> Any:
    """A flag's default as JSON; enumerations as their value."""
    import dataclasses

    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return getattr(field.default, "value", field.default)


def _prune_all(nodes: dict[str, Any]) -> dict[str, Any]:
    return {name: _prune(node) for name, node in sorted(nodes.items())}


def _prune(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    kept: dict[str, Any] = {}
    for key in sorted(_KEPT & node.keys()):
        value = node[key]
        if key == "properties":
            kept[key] = _prune_all(value)
        elif key in ("anyOf", "prefixItems"):
            kept[key] = [_prune(option) for option in value]
        elif key == "description":
            kept[key] = " ".join(value.split())
        else:
            kept[key] = _prune(value) if isinstance(value, dict) else value
    return kept


def derive() -> dict[str, Any]:
    """Everything that `axolotl.json` holds."""
    return {
        **axolotl_schema(),
        "reserved": axolotl_reserved(),
        "plugins": axolotl_plugins(),
        "packing": axolotl_packing(),
    }


def encode(snapshot: dict[str, Any]) -> str:
    """The committed form: stable order, one change a line."""
    return json.dumps(snapshot, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


SNAPSHOTS: dict[str, Callable[[], dict[str, Any]]] = {
    "axolotl": derive,
    "trainer": trainer_flags,
    "accelerate": accelerate_flags.accelerate,
    "transformers": accelerate_flags.transformers,
    "instruct": instruct_types.instruct_types,
}


def main() -> None:
    for name, make in SNAPSHOTS.items():
        target = UPSTREAM / f"{name}.json"
        target.write_text(encode(make()))
        print(f"wrote {target}")


if __name__ == "__main__":
    main()

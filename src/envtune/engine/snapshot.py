"""Derives the committed snapshots of upstream from the installed packages.

Run by `make generate` inside the train environment. What it writes is data that the
control plane can read without torch: Axolotl's settings as a JSON schema, and the
environment variables that Axolotl reads for itself and that must never become settings.
"""

import importlib.metadata
import json
import re
from pathlib import Path
from typing import Any

UPSTREAM = Path(__file__).resolve().parent.parent / "upstream"

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
    from pydantic.json_schema import GenerateJsonSchema

    class Generator(GenerateJsonSchema):
        """Axolotl's fields hold torch dtypes and enums of them, which pydantic cannot name."""

        def encode_default(self, dft: Any) -> Any:
            return str(dft)

        def enum_schema(self, schema: Any) -> dict[str, Any]:
            values = [member.value for member in schema["members"]]
            return {"enum": [_written(value) for value in values]}

    schema = AxolotlInputConfig.model_json_schema(schema_generator=Generator, by_alias=True)
    return {
        "version": importlib.metadata.version("axolotl"),
        "required": sorted(schema["required"]),
        "fields": _prune_all(schema["properties"]),
        "defs": _prune_all(schema["$defs"]),
    }


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
    return {**axolotl_schema(), "reserved": axolotl_reserved()}


def encode(snapshot: dict[str, Any]) -> str:
    """The committed form: stable order, one change a line."""
    return json.dumps(snapshot, indent=1, sort_keys=True, ensure_ascii=True) + "\n"


def main() -> None:
    target = UPSTREAM / "axolotl.json"
    target.write_text(encode(derive()))
    print(f"wrote {target}")


if __name__ == "__main__":
    main()

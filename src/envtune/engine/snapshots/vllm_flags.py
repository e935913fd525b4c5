"""Derives upstream/vllm.json, the flags of `vllm serve`, from vLLM's own parser.

Run by `make generate` with the Python of the serve environment.
"""

import argparse
import importlib.metadata
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

UPSTREAM = Path(__file__).resolve().parents[2] / "settings" / "upstream"

_SIZE = {
    "anyOf": [
        {"type": "integer"},
        {"type": "string", "pattern": r"^(auto|-1|\d+(\.\d+)?[kmgtKMGT])$"},
    ]
}
# vLLM's converters by name; text is what no other converter takes.
_NODES: dict[str, dict[str, Any]] = {
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "loads": {},
    "parse_dataclass": {"type": "object"},
    "union_dict_and_str": {},
    "human_readable_int": _SIZE,
    "human_readable_int_or_auto": _SIZE,
}


def flags() -> dict[str, Any]:
    """`version`, and `flags`: long name with underscores -> JSON schema node."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    actions = make_arg_parser(FlexibleArgumentParser())._actions
    known = {name: _node(action) for action in actions if (name := _long(action))}
    return {"version": importlib.metadata.version("vllm").split("+")[0], "flags": known}


def _long(action: argparse.Action) -> str:
    """The long name with underscores, or nothing where there is none."""
    names = [name[2:] for name in action.option_strings if name.startswith("--")]
    return names[0].replace("-", "_") if names and names[0] != "help" else ""


def _node(action: argparse.Action) -> dict[str, Any]:
    said = _first_sentence(action.help or "")
    text = {"description": said} if said else {}
    if action.nargs == 0:
        return {"type": "boolean", **text}
    if action.choices:
        return {"enum": [choice for choice in action.choices if choice is not None], **text}
    one = _NODES.get(_name(action.type), {"type": "string"})
    if action.nargs == "+" or isinstance(action, argparse._AppendAction):
        return {"type": "array", "items": one, **text}
    return {**one, **text}


def _name(kind: Any) -> str:
    """The converter's name; one for a value that may be missing wraps another."""
    while getattr(kind, "__name__", "") in ("_optional_type", "_parse_type"):
        kind = _wrapped(kind)
    return str(getattr(kind, "__name__", ""))


def _wrapped(kind: Callable[..., Any]) -> Any:
    assert kind.__closure__ is not None
    return kind.__closure__[0].cell_contents


def _first_sentence(text: str) -> str:
    """Of vLLM's pages of help only what the flag is."""
    text = " ".join(text.replace("%%", "%").split())
    found = re.match(r".*?[.!](?=\s|$)", text)
    return found[0] if found else text


def main() -> int:
    """Writes the snapshot, or prints it for `--show`."""
    text = json.dumps(flags(), indent=1, sort_keys=True) + "\n"
    if sys.argv[1:] == ["--show"]:
        print(text, end="")
    else:
        (UPSTREAM / "vllm.json").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Values as text of YAML, and what such a text holds beside what it has to."""

import json
from collections.abc import Mapping
from typing import Any

import yaml

# Unicode's own line breaks, which PyYAML writes raw and reads back as something else.
_BREAKS = set("\x85\u2028\u2029\ufeff")


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice out twice: nobody reads anchors gladly."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def dump(value: Any, *, default_flow_style: bool) -> str:
    """A value as YAML, on one line or over several."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=default_flow_style,
        sort_keys=False,
        allow_unicode=not _BREAKS & set(json.dumps(value, ensure_ascii=False, default=str)),
        width=2**20,
    )
    return text


def unlike(text: str, wanted: Mapping[str, Any]) -> str:
    """Why a text is not the YAML of `wanted`, or nothing."""
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        return f"does not make YAML: {error}"
    found = found if isinstance(found, Mapping) else {}
    wrong = sorted(
        str(key)
        for key in {*found, *wanted}
        if key not in found or key not in wanted or not _same(found[key], wanted[key])
    )
    if not wrong:
        return ""
    fix = "; AXOLOTL_OUTPUT_DIR names the run's folder" if "output_dir" in wrong else ""
    return f"loses or changes {', '.join(wrong)}{fix}"


def _same(found: Any, wanted: Any) -> bool:
    """Equal, and of the same type: 1, 1.0 and True are three things here."""
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[k], wanted[k]) for k in wanted)
    return bool(found == wanted)

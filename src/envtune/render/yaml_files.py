"""RunConfig -> YAML through a Jinja template, read back and compared.

A template only lays out: every value passes through `yaml.safe_dump`, so that neither a
quote nor a newline in a value can change the document, and what comes out is parsed and
has to equal what went in.
"""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from envtune.errors import Problem, Refused
from envtune.resolve.config import RunConfig, Value
from envtune.settings import upstream

_INSTALLED = Path(__file__).parents[1] / "templates"
_CHECKOUT = Path(__file__).parents[3] / "templates"
TEMPLATES = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
AXOLOTL_TEMPLATE = TEMPLATES / "axolotl.yaml.j2"

# Unicode's own line breaks, which PyYAML writes raw and reads back as something else.
_BREAKS = set("\x85\u2028\u2029\ufeff")
# Characters of YAML; a template that writes more repeats something.
_LONGEST = 1 << 20


class _Dumper(yaml.SafeDumper):
    """Writes a value that occurs twice out twice: nobody reads anchors gladly."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Plain(str):
    """Text of the template's own that needs no quoting."""


def lay_out(values: Mapping[str, Value], template: Path) -> str:
    """The template's YAML of `values`, read back and compared. Raises Refused."""
    text = _render(template, values=values, axolotl_version=upstream.axolotl()["version"])
    if len(text) > _LONGEST:
        raise refused(template, f"makes more than {_LONGEST >> 20} MiB of YAML")
    _compare(text, {key: value.value for key, value in values.items()}, template)
    return text


def render_accelerate(config: RunConfig) -> str:
    """The file for `accelerate launch --config_file`: the preset over the user's own file."""
    plain, preset = config.plain(), config.parallel.preset
    text = _render(
        TEMPLATES / "accelerate" / f"{preset}.yaml.j2",
        config=config,
        precision=next((name for name in ("bf16", "fp16") if plain.get(name)), "no"),
        fsdp=_fsdp_of_accelerate(plain),
        deepspeed=plain.get("deepspeed"),
    )
    if not config.parallel.base:
        return text
    return _dump({**config.parallel.base, **yaml.safe_load(text)}, default_flow_style=False)


def _fsdp_of_accelerate(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Axolotl's `fsdp_config` under accelerate's names, without what accelerate has not."""
    flags = upstream.accelerate()["flags"]
    config = {f"fsdp_{key}": value for key, value in (plain.get("fsdp_config") or {}).items()}
    return {key: value for key, value in config.items() if key in flags}


def deepspeed_file(config: RunConfig) -> str | None:
    """The name of the DeepSpeed file that the preset's run needs in its config folder."""
    name = f"{config.parallel.preset}.json"
    return name if config.plain().get("deepspeed") == f"config/{name}" else None


def _render(template: Path, **context: Any) -> str:
    try:
        return _compiled(template.read_text()).render(**context)
    except (OSError, UnicodeDecodeError) as error:
        raise refused(template, f"cannot be read: {error}") from None
    except jinja2.TemplateError as error:
        raise refused(template, f"line {getattr(error, 'lineno', '?')}: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # a template is a program of the user's
        raise refused(template, f"fails: {type(error).__name__}: {error}") from None


@cache
def _compiled(text: str) -> jinja2.Template:
    """A template of this text, compiled once."""
    environment = ImmutableSandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"plain": _Plain, "block": _block, "origin": _origin}
    environment.tests["structured"] = lambda value: isinstance(value, list | dict) and bool(value)
    return environment.from_string(text)


def _finalize(value: Any) -> str:
    if isinstance(value, _Plain):
        return str(value)
    return _dump(value, default_flow_style=True).removesuffix("...\n").rstrip("\n")


def _block(value: Any) -> _Plain:
    """A list or object over several lines, two spaces in."""
    lines = _dump(value, default_flow_style=False).rstrip("\n").split("\n")
    return _Plain("\n".join("  " + line if line else line for line in lines))


def _dump(value: Any, *, default_flow_style: bool) -> str:
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        default_flow_style=default_flow_style,
        sort_keys=False,
        allow_unicode=not _BREAKS & set(json.dumps(value, ensure_ascii=False, default=str)),
        width=2**20,
    )
    return text


def _origin(value: Value) -> _Plain:
    """Where a value came from, as the text of a comment."""
    text = f"{value.source}: {value.reason}" if value.reason else value.source
    return _Plain(" ".join(text.split()))


def _compare(text: str, wanted: Mapping[str, Any], template: Path) -> None:
    try:
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        raise refused(template, f"does not make YAML: {error}") from None
    found = found if isinstance(found, Mapping) else {}
    wrong = sorted(
        str(key)
        for key in {*found, *wanted}
        if key not in found or key not in wanted or not _same(found[key], wanted[key])
    )
    if wrong:
        fix = "; AXOLOTL_OUTPUT_DIR names the run's folder" if "output_dir" in wrong else ""
        raise refused(template, f"loses or changes {', '.join(wrong)}{fix}")


def _same(found: Any, wanted: Any) -> bool:
    """Equal, and of the same type: 1, 1.0 and True are three things here."""
    if type(found) is not type(wanted):
        return False
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(_same, found, wanted))
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(_same(found[k], wanted[k]) for k in wanted)
    return bool(found == wanted)


def refused(template: Path, message: str) -> Refused:
    """What is wrong with a template, on one line."""
    return Refused([Problem("", f"template {template} {message}")])

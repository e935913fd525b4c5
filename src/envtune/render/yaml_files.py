"""RunConfig -> YAML through a Jinja template, read back and compared.

A template only lays out: every value passes through `yaml.safe_dump`, so that neither a
quote nor a newline in a value can change the document, and what comes out is parsed and
has to equal what went in.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment

from envtune.errors import Problem, Refused
from envtune.render import yaml_values
from envtune.render.yaml_values import dump
from envtune.resolve.config import RunConfig, Value
from envtune.settings import upstream

_INSTALLED = Path(__file__).parents[1] / "templates"
_CHECKOUT = Path(__file__).parents[3] / "templates"
TEMPLATES = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT
AXOLOTL_TEMPLATE = TEMPLATES / "axolotl.yaml.j2"

# Characters of YAML; a template that writes more repeats something.
_LONGEST = 1 << 20


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
    return dump({**config.parallel.base, **yaml.safe_load(text)}, default_flow_style=False)


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
    return dump(value, default_flow_style=True).removesuffix("...\n").rstrip("\n")


def _block(value: Any) -> _Plain:
    """A list or object over several lines, two spaces in."""
    lines = dump(value, default_flow_style=False).rstrip("\n").split("\n")
    return _Plain("\n".join("  " + line if line else line for line in lines))


def _origin(value: Value) -> _Plain:
    """Where a value came from, as the text of a comment."""
    text = f"{value.source}: {value.reason}" if value.reason else value.source
    shown = "".join(c if c.isprintable() else " " for c in text)  # YAML takes no control codes
    return _Plain(" ".join(shown.split()))


def _compare(text: str, wanted: Mapping[str, Any], template: Path) -> None:
    if wrong := yaml_values.unlike(text, wanted):
        raise refused(template, wrong)


def refused(template: Path, message: str) -> Refused:
    """What is wrong with a template, on one line."""
    return Refused([Problem("", f"template {template} {message}")])

"""Axolotl's YAML by our own template, or by a user's, which a child of its own lays out."""

import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from envtune import files
from envtune.errors import Problem, Refused
from envtune.render import yaml_values
from envtune.resolve.config import RunConfig, Value
from envtune.settings import documents


def render_axolotl(config: RunConfig) -> str:
    """Axolotl's YAML. Raises Refused when a template of the user's loses or changes a value."""
    from envtune.render import yaml_files

    if (template := _users(config)) is not None:
        return confined(config.axolotl, template)
    return yaml_files.lay_out(config.axolotl, yaml_files.AXOLOTL_TEMPLATE)


def prove(config: RunConfig) -> None:
    """That `render_axolotl` will not refuse. Our own template lays out any value that YAML holds,
    so that jinja2, a fifth of a check's time, is not imported for it."""
    if (template := _users(config)) is not None:
        confined(config.axolotl, template)
        return
    plain = config.plain()
    if wrong := yaml_values.unlike(yaml_values.dump(plain, default_flow_style=False), plain):
        raise Refused([Problem("", f"YAML {wrong}")])


def _users(config: RunConfig) -> Path | None:
    """The user's own template, if one is named; a plain YAML is a source of defaults, and has been
    read by now."""
    named = config.setting("SFT_TEMPLATE")
    return Path(named) if named and documents.read_defaults(Path(named)) is None else None


def confined(values: Mapping[str, Value], template: Path) -> str:
    """`yaml_files.lay_out` in a child. Raises Refused where it fails, or is stopped by a limit."""
    # What our own template does not need.
    from envtune.render import launch, sandbox
    from envtune.supervise import process

    with tempfile.TemporaryDirectory(prefix="envtune-") as name:
        folder = Path(name)
        plain = {key: asdict(value) for key, value in values.items()}
        order = {"template": str(template.resolve()), "values": plain}
        files.write_json(folder / sandbox.ORDER, order, durable=False)
        plan = launch.sandbox(folder, sys.executable, os.pathsep.join(sys.path))
        code = process.quietly(plan, folder / "log")
        try:
            result = files.read_json(folder / sandbox.RESULT)
        except FileNotFoundError:
            raise _stopped(template, code) from None
    if "refused" in result:
        raise Refused([Problem("", result["refused"])])
    return str(result["yaml"])


def _stopped(template: Path, code: int) -> Refused:
    from envtune.render import sandbox, yaml_files

    why = f"ends with code {code}"
    if code == -signal.SIGPROF:
        why = f"takes more than {sandbox.SECONDS:.0f} seconds of a processor"
    return yaml_files.refused(template, why)

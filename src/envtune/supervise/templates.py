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
from envtune.render import launch, sandbox, yaml_files
from envtune.resolve.config import RunConfig, Value
from envtune.settings import documents


def render_axolotl(config: RunConfig) -> str:
    """Axolotl's YAML. Raises Refused when a template of the user's loses or changes a value."""
    named = config.setting("SFT_TEMPLATE")
    # A plain YAML is a source of defaults, and has been read by now.
    if named is None or documents.read_defaults(Path(named)) is not None:
        return yaml_files.lay_out(config.axolotl, yaml_files.AXOLOTL_TEMPLATE)
    return confined(config.axolotl, Path(named))


def confined(values: Mapping[str, Value], template: Path) -> str:
    """`yaml_files.lay_out` in a child. Raises Refused where it fails, or is stopped by a limit."""
    from envtune.supervise import process  # which our own template does not need

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
    why = f"ends with code {code}"
    if code == -signal.SIGPROF:
        why = f"takes more than {sandbox.SECONDS:.0f} seconds of a processor"
    return yaml_files.refused(template, why)

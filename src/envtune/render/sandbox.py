"""Lays out a user's template in a child that cannot last long or grow large.

Jinja's sandbox keeps a template from the machine, not from a loop or a text without end. A
limit of memory and a timer that kills hold whatever it does, and no secret is in there.
"""

import json
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from os import pathsep
from pathlib import Path

from envtune import files
from envtune.errors import Problem, Refused
from envtune.render import yaml_files
from envtune.render.launch import LaunchPlan
from envtune.resolve.config import Value
from envtune.supervise import process

# Of a processor, since a machine may pause; a template that can open nothing cannot sleep.
SECONDS = 5.0
MEMORY = 256 * 2**20
_ORDER, _RESULT = "order.json", "result.json"


def lay_out(values: Mapping[str, Value], template: Path) -> str:
    """`render.lay_out` in a child. Raises Refused where it fails, or is stopped by a limit."""
    with tempfile.TemporaryDirectory(prefix="envtune-") as name:
        folder = Path(name)
        order = {"template": str(template.resolve()), "values": _plain(values)}
        files.write_json(folder / _ORDER, order, durable=False)
        code = process.quietly(_plan(folder), folder / "log")
        try:
            result = json.loads((folder / _RESULT).read_text())
        except FileNotFoundError:
            raise _stopped(template, code) from None
    if "refused" in result:
        raise Refused([Problem("", result["refused"])])
    return str(result["yaml"])


def _plan(folder: Path) -> LaunchPlan:
    environ = {"PYTHONPATH": pathsep.join(sys.path), "PYTHONUTF8": "1"}
    return LaunchPlan((sys.executable, "-P", "-m", "envtune.render.sandbox"), environ, folder)


def _stopped(template: Path, code: int) -> Refused:
    why = f"ends with code {code}"
    if code == -signal.SIGPROF:
        why = f"takes more than {SECONDS:.0f} seconds of a processor"
    return yaml_files.refused(template, why)


def _plain(values: Mapping[str, Value]) -> dict[str, object]:
    return {key: asdict(value) for key, value in values.items()}


def _limit() -> None:
    """The timer's signal has no handler: the kernel ends the process, whatever it is at."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)


def main() -> None:
    order = json.loads(Path(_ORDER).read_text())
    values = {key: Value(**value) for key, value in order["values"].items()}
    template = Path(order["template"])
    _limit()
    try:
        result = {"yaml": yaml_files.lay_out(values, template)}
    except Refused as refused:
        result = {"refused": str(refused)}
    except MemoryError:
        why = f"needs more than {MEMORY >> 20} MiB of memory"
        result = {"refused": str(yaml_files.refused(template, why))}
    files.write_json(Path(_RESULT), result, durable=False)


if __name__ == "__main__":
    main()

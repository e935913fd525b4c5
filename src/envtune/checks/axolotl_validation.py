"""Asks Axolotl itself, in a child, since its validation imports torch: `check --deep`."""

import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from envtune import channel, files, redaction
from envtune.errors import Problem
from envtune.machine import hardware
from envtune.render import launch
from envtune.render.launch import CONFIG, MACHINE, VERDICT, Place
from envtune.resolve.config import Configuration, RunConfig
from envtune.supervise import process, templates

LOG = logging.getLogger("envtune")
# A line is for the point; Axolotl's own text has the rest.
_LONGEST = 400


def ask(made: Configuration) -> tuple[list[Problem], list[str]]:
    """What Axolotl refuses of a configuration, and what it warns of."""
    with tempfile.TemporaryDirectory(prefix="envtune-") as folder:
        verdict = _verdict(made, Path(folder))
    problems = [problem(made.config, **told) for told in verdict["problems"]]
    warnings = [f"Axolotl: {_point(text)}" for text in verdict["warnings"]]
    return list(dict.fromkeys(problems)), list(dict.fromkeys(warnings))


def _verdict(made: Configuration, folder: Path) -> dict[str, Any]:
    (folder / CONFIG).write_text(templates.render_axolotl(made.config))
    (folder / MACHINE).write_text(json.dumps(capabilities(made.config, made.facts.machine)))
    environ = made.inputs.passed_on
    place = Place(
        run_dir=folder,
        python=sys.executable,
        cores=hardware.cores(),
        supervisor=(stamp := channel.process_stamp(os.getpid()) or ""),
        owner=stamp,
        gpus=len(made.facts.machine.gpus),
        where=made.facts.where,
        home=None if hardware.home_is_usable(environ) else folder,
    )
    log = folder / "log"
    code = process.quietly(launch.validate(made.config, place, environ), log)
    said = redaction.redact(log.read_text(errors="replace"), made.inputs.secrets)
    LOG.debug("%s", said)
    try:
        verdict: dict[str, Any] = files.read_json(folder / VERDICT)
    except FileNotFoundError:
        raise RuntimeError(f"Axolotl's validation ended with {code}: {said[-2000:]}") from None
    return verdict


def capabilities(config: RunConfig, machine: hardware.Machine) -> dict[str, Any]:
    """The machine in the words of Axolotl's GPUCapabilities."""
    gpu = machine.gpus[0].capability if config.device == "cuda" else None
    return {
        "bf16": gpu is not None and gpu >= (8, 0),
        "tf32": gpu is not None and gpu >= (8, 0),
        "fp8": gpu is not None and gpu >= (9, 0),
        "n_gpu": config.parallel.world,
        "compute_capability": f"sm_{gpu[0]}{gpu[1]}" if gpu else None,
    }


def problem(config: RunConfig, keys: Sequence[str], message: str) -> Problem:
    """Names the variable that the value came from, the user's own before a default."""
    dotted = [key for key in keys if key.partition(".")[0] in config.axolotl]
    named = dotted or list(_named(config, message))
    named.sort(key=lambda key: config.axolotl[key.partition(".")[0]].source == "envtune")
    top, _, rest = (named[0] if named else "").partition(".")
    where = f" at {rest}" if rest else ""
    return Problem(_variable(config, top), f"Axolotl refuses it{where}: {_point(message)}")


def _named(config: RunConfig, message: str) -> Iterator[str]:
    """The keys that a message speaks of and the YAML holds."""
    words = dict.fromkeys(re.findall(r"[a-z0-9_]+", message))
    return (word for word in words if word in config.axolotl)


def _variable(config: RunConfig, key: str) -> str:
    if not key:
        return ""
    source = config.axolotl[key].source
    return f"AXOLOTL_{key.upper()}" if source == "envtune" else source


def _point(message: str) -> str:
    """The message without pydantic's words around it, on one line."""
    text = " ".join(re.sub(r"^(Value|Assertion) error, ", "", message).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."

"""Axolotl's own validation of a YAML for a machine that need not be here.

Run as a child in a folder that holds `axolotl.yaml` and `machine.json`; writes
`verdict.json`. What Axolotl prints meanwhile is noise.
"""

import copy
import json
import logging
from pathlib import Path
from typing import Any

import yaml

from envtune import files
from envtune.render.launch import CONFIG, MACHINE, VERDICT
from envtune.settings import upstream

# Without these Axolotl says other things first.
_NEEDED = {"datasets", *upstream.axolotl()["required"]}


def validate(config: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """What Axolotl says about a configuration.

    `machine` has `compute_capability` such as sm_90, or None for a CPU; `n_gpu`, the ranks
    of the training; `bf16`, `fp8` and `tf32`. Returns `warnings`, and `problems` as
    `refusals` gives them.
    """
    from axolotl.utils.config import prepare_plugins
    from axolotl.utils.dict import DictDefault

    heard = _Heard()
    logging.getLogger("axolotl").addHandler(heard)
    try:
        prepare_plugins(DictDefault(config))
    except Exception as error:
        return {"problems": _told(error), "warnings": heard.warnings}
    else:
        return {"problems": refusals(config, machine), "warnings": heard.warnings}
    finally:
        logging.getLogger("axolotl").removeHandler(heard)


def refusals(config: dict[str, Any], machine: dict[str, Any]) -> list[dict[str, Any]]:
    """Everything that Axolotl refuses: `keys` that it is about, and the `message`."""
    problems = _refused(config, machine)
    for problem in problems:
        if not problem["keys"]:
            problem["keys"] = _blamed(config, machine, problem["message"])
    return problems


def _blamed(config: dict[str, Any], machine: dict[str, Any], message: str) -> list[str]:
    """The keys without which Axolotl does not say so."""
    found = []
    for key in config.keys() - _NEEDED:
        rest = _refused({k: v for k, v in config.items() if k != key}, machine)
        if message not in [problem["message"] for problem in rest]:
            found.append(key)
    return found


def _refused(config: dict[str, Any], machine: dict[str, Any]) -> list[dict[str, Any]]:
    from axolotl.utils.config import validate_config
    from axolotl.utils.dict import DictDefault

    torch = {"torch_version": _torch_version()}
    try:
        validate_config(DictDefault(copy.deepcopy(config)), dict(machine), torch)
    except Exception as error:  # its validators raise what they like, also DeprecationWarning
        return _told(error)
    return []


def _told(error: Exception) -> list[dict[str, Any]]:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return [{"keys": [], "message": str(error) or type(error).__name__}]
    return [
        {"keys": [".".join(map(str, e["loc"]))] if e["loc"] else [], "message": e["msg"]}
        for e in error.errors()
    ]


class _Heard(logging.Handler):
    """Keeps each warning once, in order."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.warnings: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if (text := record.getMessage()) not in self.warnings:
            self.warnings.append(text)


def _torch_version() -> str:
    import torch

    return str(torch.__version__).split("+", maxsplit=1)[0]


def main() -> None:
    config = yaml.safe_load(Path(CONFIG).read_text())
    machine = json.loads(Path(MACHINE).read_text())
    files.write_json(Path(VERDICT), validate(config, machine))


if __name__ == "__main__":
    main()

"""Axolotl's own validation of a YAML for a machine that need not be here.

Run as a child in a folder that holds `axolotl.yaml` and `machine.json`; writes
`verdict.json`. What Axolotl prints meanwhile is noise.
"""

import json
import logging
from pathlib import Path
from typing import Any

import yaml

from envtune import files

CONFIG, MACHINE, VERDICT = "axolotl.yaml", "machine.json", "verdict.json"


def validate(config: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """What Axolotl says about a configuration.

    `machine` has `compute_capability` such as sm_90, or None for a CPU; `n_gpu`, the ranks
    of the training; `bf16`, `fp8` and `tf32`. Returns `problems` with the `key` that each is
    about (empty where the message has to tell) and `warnings`.
    """
    from axolotl.utils.config import prepare_plugins, validate_config
    from axolotl.utils.dict import DictDefault

    torch = {"torch_version": _torch_version()}
    heard = _Heard()
    logging.getLogger("axolotl").addHandler(heard)
    problems = []
    try:
        given = DictDefault(config)
        prepare_plugins(given)
        validate_config(given, capabilities=machine, env_capabilities=torch)
    except Exception as error:  # its validators raise what they like, also DeprecationWarning
        problems = told(error)
    finally:
        logging.getLogger("axolotl").removeHandler(heard)
    return {"problems": problems, "warnings": heard.warnings}


def told(error: Exception) -> list[dict[str, str]]:
    """The `key` and the `message` of everything that an error of the validation speaks of."""
    from pydantic import ValidationError

    if isinstance(error, ValidationError):
        return [{"key": ".".join(map(str, e["loc"])), "message": e["msg"]} for e in error.errors()]
    return [{"key": "", "message": str(error) or type(error).__name__}]


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

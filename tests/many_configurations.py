"""Puts many configurations to Axolotl in one process, since importing it takes ten seconds.

Reads a JSON list of [configuration, machine] and writes one of what `validate` says, with
`result` where nothing is refused: the configuration as Axolotl completed it.
"""

import copy
import functools
import json
import sys
from pathlib import Path
from typing import Any

from axolotl.integrations.base import PluginManager
from axolotl.utils import config as axolotl_config
from axolotl.utils.dict import DictDefault

from envtune.engine.validate import validate

_merge = axolotl_config.merge_input_args


@functools.cache
def merged(plugins: tuple[str, ...]) -> Any:
    """Axolotl's classes with the arguments of some plugins; making them takes a second."""
    return _merge()


axolotl_config.merge_input_args = lambda: merged(
    tuple(PluginManager.get_instance().get_input_args())
)


def answer(config: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    PluginManager._instance = None  # a process has one, which would keep every plugin
    verdict = validate(copy.deepcopy(config), machine)
    if not verdict["problems"]:
        torch, given = {"torch_version": "2.13.0"}, DictDefault(config)
        verdict["result"] = axolotl_config.validate_config(given, machine, torch).to_dict()
    return verdict


def main() -> None:
    questions, answers = map(Path, sys.argv[1:])
    told = [answer(*question) for question in json.loads(questions.read_text())]
    answers.write_text(json.dumps(told, default=str))


if __name__ == "__main__":
    main()

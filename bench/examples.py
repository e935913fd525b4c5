"""How many of other people's Axolotl files envtune takes: in each way that it is given them.

    make bench-examples EXAMPLES=axolotl-0.19.0/examples

The folder is one of YAML files, such as the examples of Axolotl's source package. Each file is
asked of Axolotl's own validation first. Those that it takes have to be taken as variables, as a
mounted file, as base64 and as a template, for one pretended GPU and for eight; what envtune
writes has to be taken by Axolotl again, and to hold what the file says. Nothing is asked of the
Hub. Prints a count for each way, and why a file was refused or changed.
"""

import base64
import json
import logging
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from envtune.checks import axolotl_validation, preflight
from envtune.engine import validate
from envtune.errors import Refused
from envtune.machine.pretended import pretend
from envtune.resolve import rules
from envtune.resolve.config import RunConfig
from envtune.resolve.look import look
from envtune.settings import given, sources

WAYS = ("variables", "file", "base64", "template")
MACHINES = ("h100", "h100x8")


def environs(path: Path, values: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The environments that give a file in each of WAYS."""
    empty = {"adapter": "null"}  # the one key that says something when it is empty
    yield {
        f"AXOLOTL_{key.upper()}": empty.get(key, "") if value is None else sources.as_text(value)
        for key, value in values.items()
    }
    yield {"SFT_TRAINER_CONFIG_JSON_PATH": str(path)}
    coded = base64.b64encode(json.dumps(values, default=str).encode()).decode()
    yield {"SFT_TRAINER_CONFIG_JSON_ENV_VAR": coded}
    yield {"SFT_TEMPLATE": str(path)}


def made(environ: Mapping[str, str], machine: str) -> RunConfig:
    """What would be trained, as `envtune check` finds it without asking the Hub. Raises Refused."""
    inputs = sources.with_documents(sources.read((), {**environ, "SFT_PRETEND_GPU": machine}))
    settings = given.settings(inputs)
    preflight.refuse_settings(settings)
    facts = look(settings, inputs.environ)
    preflight.refuse(preflight.HERE, settings, facts)
    return rules.resolve(settings, facts)


def refused_by_axolotl(values: dict[str, Any], machine: Mapping[str, Any]) -> list[str]:
    """What Axolotl itself says against a configuration on such a machine."""
    from axolotl.integrations.base import PluginManager
    from axolotl.utils.config import prepare_plugins
    from axolotl.utils.dict import DictDefault

    PluginManager.get_instance().plugins.clear()  # those of the file before
    prepare_plugins(DictDefault(values))
    return [problem["message"] for problem in validate.refusals(values, dict(machine))]


def capabilities(machine: str) -> dict[str, Any]:
    """A pretended machine in Axolotl's words."""
    gpus = pretend(machine).gpus
    told = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": len(gpus)}
    return told | {"compute_capability": "sm_{}{}".format(*gpus[0].capability)}


def judged(environ: Mapping[str, str], machine: str) -> list[str]:
    """Why a file is not taken in this way on this machine; nothing where it is."""
    try:
        config = made(environ, machine)
    except Refused as refused:
        return [str(problem) for problem in refused.problems]
    plain = json.loads(json.dumps(config.plain()))
    there = axolotl_validation.capabilities(config, pretend(machine))
    return [f"written, and refused by Axolotl: {m}" for m in refused_by_axolotl(plain, there)]


def main() -> None:
    logging.disable()
    folder = Path(sys.argv[1])
    taken: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    files = there = 0
    os.chdir(folder.parent)  # where Axolotl's own examples look for their files
    for path in sorted(p for p in folder.rglob("*.y*ml")):
        try:
            values = yaml.safe_load(path.read_text())
        except yaml.YAMLError:
            continue
        if not isinstance(values, dict) or "base_model" not in values:
            continue
        files += 1
        try:
            wrong = refused_by_axolotl(values, capabilities("h100"))
        except Exception as error:
            wrong = [str(error)]
        if wrong:
            print(f"{path.relative_to(folder)}: Axolotl: {wrong[0][:150]}")
            continue
        there += 1
        with tempfile.TemporaryDirectory() as scratch:
            for way, environ in zip(WAYS, environs(path, values), strict=True):
                for machine in MACHINES:
                    said = judged(
                        {**environ, "SFT_OUTPUTS_DIR": scratch, "SFT_LOGS_DIR": scratch}, machine
                    )
                    taken[way, machine] += not said
                    for line in said:
                        print(f"{path.relative_to(folder)} [{way}, {machine}] {line[:230]}")
                        reasons[line.split(": ", 1)[-1][:110]] += 1
    print(f"{files} files, {there} that Axolotl takes on one H100")
    for way in WAYS:
        print(f"{way:10}", *(f"{m}: {taken[way, m]} of {there}" for m in MACHINES))
    if "-v" in sys.argv:
        for reason, count in reasons.most_common(80):
            print(f"{count:5} {reason}")


if __name__ == "__main__":
    main()

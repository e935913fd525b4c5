"""How many of other people's Axolotl files envtune takes: in each way that it is given them.

    make bench-examples EXAMPLES=axolotl-0.19.0/examples

The folder is one of YAML files, such as the examples of Axolotl's source package. Each file is
asked of Axolotl's own validation first. Those that it takes have to be taken as variables, as a
mounted file, as base64 and as a template, for one pretended GPU and for eight; what envtune
writes has to be taken by Axolotl again, and to hold what the file says or to tell why not.
Nothing is asked of the Hub. Prints a count for each way, and why a file was refused or changed.
"""

import base64
import contextlib
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
from envtune.errors import Refused
from envtune.machine.pretended import pretend
from envtune.resolve import rules
from envtune.resolve.config import RunConfig
from envtune.resolve.look import look
from envtune.settings import given, sources, upstream

# The run's folder and the accumulation that makes it up take the place of two; what a variable of
# Axolotl's own says, its child hears.
ELSEWHERE = {
    "output_dir",
    "batch_size",
    *(n.removeprefix("AXOLOTL_").lower() for n in upstream.axolotl()["reserved"]),
}
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


def refused_by_axolotl(values: Mapping[str, Any], machine: Mapping[str, Any]) -> list[str]:
    """What Axolotl itself says against a configuration on such a machine."""
    from tests.many_configurations import answer

    try:
        with tempfile.TemporaryDirectory() as scratch, contextlib.chdir(scratch):
            verdict = answer(dict(values), dict(machine))
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    return [problem["message"] for problem in verdict["problems"]]


def capabilities(machine: str) -> dict[str, Any]:
    """A pretended machine in Axolotl's words."""
    gpus = pretend(machine).gpus
    told = {"bf16": True, "fp8": True, "tf32": True, "n_gpu": len(gpus)}
    return told | {"compute_capability": "sm_{}{}".format(*gpus[0].capability)}


def unsaid(values: Mapping[str, Any], config: RunConfig) -> Iterator[str]:
    """What a file says and is not written, where no line names its key."""
    reasons = (value.reason for value in config.axolotl.values())
    plain, told = config.plain(), " ".join((*config.notes, *config.warnings, *reasons)).lower()
    for key in values.keys() - ELSEWHERE:
        value = values[key]
        if value is not None and key not in told and not _same(value, plain.get(key)):
            yield f"changed and not told: {key}: {value!r} is {plain.get(key)!r}"


def _same(value: Any, written: Any) -> bool:
    """Whether a value is what is written, as numbers where both are; off may be left out."""
    if isinstance(value, Mapping):
        inside = written if isinstance(written, Mapping) else {}
        return all(_same(item, inside.get(name)) for name, item in value.items())
    if isinstance(value, list):
        there = written if isinstance(written, list) else []  # envtune's own plugin is there too
        return all(any(_same(item, other) for other in there) for item in value)
    try:
        return float(value) == float(written)
    except (TypeError, ValueError):
        located = isinstance(written, str) and written == os.path.abspath(str(value))
        return bool(located or value == written or (not value and written is None))


def judged(values: Mapping[str, Any], environ: Mapping[str, str], machine: str) -> list[str]:
    """Why a file is not taken in this way on this machine; nothing where it is."""
    try:
        config = made(environ, machine)
    except Refused as refused:
        return [str(problem) for problem in refused.problems]
    plain = json.loads(json.dumps(config.plain()))
    there = axolotl_validation.capabilities(config, pretend(machine))
    wrong = refused_by_axolotl(plain, there)
    return [
        *(f"written, and refused by Axolotl: {line}" for line in wrong),
        *unsaid(values, config),
    ]


def documents(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The files of a folder that name a model, as YAML has them."""
    for path in sorted(p for p in folder.rglob("*.y*ml")):
        try:
            values = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        if isinstance(values, dict) and "base_model" in values:
            yield path, values


def main() -> None:
    logging.disable()
    folder = Path(sys.argv[1]).absolute()
    taken: Counter[tuple[str, str]] = Counter()
    there: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    os.chdir(folder.parent)  # where Axolotl's own examples look for their files
    for path, values in documents(folder):
        name = path.relative_to(folder)
        there["files"] += 1
        for machine in MACHINES:
            if wrong := refused_by_axolotl(values, capabilities(machine)):
                print(f"{name} [{machine}]: Axolotl: {wrong[0][:150]}")
                continue
            there[machine] += 1
            with tempfile.TemporaryDirectory() as scratch:
                ours = {"SFT_OUTPUTS_DIR": scratch, "SFT_LOGS_DIR": scratch}
                for way, environ in zip(WAYS, environs(path, values), strict=True):
                    said = judged(values, environ | ours, machine)
                    taken[way, machine] += not said
                    for line in said:
                        print(f"{name} [{way}, {machine}] {line[:230]}")
                        reasons[line.split(": ", 1)[-1][:110]] += 1
    print(f"{there['files']} files")
    for way in WAYS:
        print(f"{way:10}", *(f"{m}: {taken[way, m]} of {there[m]}" for m in MACHINES))
    if "-v" in sys.argv:
        for reason, count in reasons.most_common(80):
            print(f"{count:5} {reason}")


if __name__ == "__main__":
    main()

"""10,000 environments: each ends in what Axolotl accepts, or in lines that name the variable."""

import gc
import logging
import random
import re
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from envtune.checks import axolotl_validation
from envtune.cli import configuration
from envtune.cli.configuration import Configuration
from envtune.engine import validate
from envtune.errors import Problem, Refused
from envtune.settings import axolotl_keys
from envtune.settings.own import OWN
from envtune.supervise import templates
from tests.environments import Environment, environment, furnish

COUNT = 10_000
# What Axolotl's rules over several keys may still refuse after us, of all environments.
LEFT_TO_AXOLOTL = 0.02

NAMES = {*(f"AXOLOTL_{key.upper()}" for key in axolotl_keys.schema().fields), *OWN}


@pytest.fixture
def quiet() -> Iterator[None]:
    """Without what Axolotl logs of each, and without a look at all that is loaded, each time
    that a few more of them have left something to the collector."""
    logging.disable(logging.CRITICAL)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    logging.disable(logging.NOTSET)


def is_a_line_for(problem: Problem, given: Environment) -> bool:
    """It is one line, and names a variable that was given, or one that has to be."""
    if not str(problem).isprintable():
        return False
    name = re.split("[:,]", problem.name)[0]
    return name in given or name.split("__")[0] in NAMES


def refusals(made: Configuration) -> list[Problem]:
    """What `check --deep` tells of a configuration that Axolotl refuses.

    The YAML was read back and compared by `render`: the values are those of the file.
    """
    machine = axolotl_validation.capabilities(made.config, made.facts.machine)
    said = validate.refusals(made.config.plain(), machine)
    return [axolotl_validation.problem(made.config, **problem) for problem in said]


@pytest.mark.usefixtures("quiet")
def test_any_environment_is_accepted_by_axolotl_or_refused_in_lines(
    dice: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    ends, left, wrong = Counter[str](), Counter[str](), list[str]()
    for _ in range(COUNT):
        given = environment(dice, tmp_path)
        try:
            made = configuration.configure((), given)
            templates.render_axolotl(made.config).encode()
            problems = refusals(made)
            ends["left to Axolotl" if problems else "accepted"] += 1
            left.update(problem.message[:100] for problem in problems[:1])
        except Refused as refused:
            ends["refused"] += 1
            problems = refused.problems
        except Exception:
            problems = []
            wrong.append(traceback.format_exc(limit=-2))
        wrong += [str(p) for p in problems if not is_a_line_for(p, given)]
    print(dict(ends))
    print("\n".join(f"{count:5} {said}" for said, count in left.most_common(25)))
    assert not wrong, wrong[:5]
    assert ends["accepted"] > COUNT / 10
    assert ends["refused"] > COUNT / 10
    assert left.total() < LEFT_TO_AXOLOTL * COUNT

"""The committed snapshots say what the installed packages say."""

import random

import accelerate
import transformers

from envtune.engine.snapshots import accelerate_flags, axolotl_schema
from envtune.settings import upstream


def test_the_snapshot_is_what_the_installed_axolotl_has() -> None:
    committed = (axolotl_schema.UPSTREAM / "axolotl.json").read_text()
    assert axolotl_schema.encode(axolotl_schema.derive()) == committed, "run `make generate`"


def test_every_setting_and_every_reserved_variable_is_in_it() -> None:
    derived = axolotl_schema.derive()
    assert len(derived["fields"]) == 390
    assert {"AXOLOTL_DO_NOT_TRACK", "AXOLOTL_NCCL_TIMEOUT"} <= set(derived["reserved"])


def test_the_flags_are_those_of_the_installed_accelerate() -> None:
    committed = (axolotl_schema.UPSTREAM / "accelerate.json").read_text()
    assert axolotl_schema.encode(accelerate_flags.accelerate()) == committed, "run `make generate`"
    assert upstream.accelerate()["version"] == accelerate.__version__


def test_the_layers_are_those_of_the_installed_transformers(dice: random.Random) -> None:
    """Some types of the table, and those whose family names layers that they have not.

    `bitnet` after `qwen3_5`, which imports fla, which has a model of its own under that type.
    """
    snapshot_ = upstream.transformers()
    assert snapshot_["version"] == transformers.__version__
    known = snapshot_["layers"]
    kinds = ("llama", "gemma4_text", "qwen3_5", "jamba", "bitnet")
    for kind in (*kinds, *dice.sample(sorted(known), 5)):
        assert accelerate_flags.layers(kind) == known[kind], kind

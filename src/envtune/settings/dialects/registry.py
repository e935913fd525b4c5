"""Which dialects there are, and how a document or a variable of one is told."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from envtune.settings import upstream
from envtune.settings.dialects import compose, industrial, trainer
from envtune.settings.dialects.rules import Implied, Others, Table


@dataclass(frozen=True)
class Dialect:
    """A table, and the top keys that tell a document of it; one of them is enough.

    `comments`: a name that begins with an underscore is one.
    """

    name: str
    table: Table
    marks: tuple[str, ...]
    sections: bool = True
    comments: bool = False
    implied: Callable[[Others], Implied] = lambda others: {}


TRAINER = Dialect(
    "the SFT trainer", trainer.TABLE, trainer.MARKS, sections=False, implied=trainer.implied
)
DIALECTS = (
    Dialect(
        "the compose pipeline",
        compose.TABLE,
        ("paths", "preprocess", "train", "logging"),
        implied=compose.implied,
    ),
    Dialect(
        "the industrial pipeline's training",
        industrial.TRAINING,
        ("training_params", "lora_config", "evaluation_config", "eval_prompts"),
        comments=True,
    ),
    Dialect(
        "the industrial pipeline's data",
        industrial.DATA,
        ("output_params", "quality_filters", "template"),
        comments=True,
    ),
    TRAINER,
)


@functools.cache
def flags() -> frozenset[str]:
    """Every flag of the SFT trainer: its own, and those of TrainingArguments."""
    return frozenset([*trainer.TABLE, *upstream.trainer()["flags"]])

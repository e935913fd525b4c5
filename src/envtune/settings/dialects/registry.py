"""Which dialects there are, and how a document or a variable of one is told."""

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envtune.settings import upstream
from envtune.settings.dialects import compose, industrial, llamafactory, trainer, trl
from envtune.settings.dialects.rules import Defaults, Table

# Where a reader finds another tool's names beside Axolotl's.
_PAGE = "docs/coming-from.md"


@dataclass(frozen=True)
class Dialect:
    """A table, and the top keys that tell a document of it: one of `marks` is enough, and a
    mark of several names wants them all.

    `comments`: a name that begins with an underscore is one. `defaults` are the lines that
    the tool adds where a document is silent.
    """

    name: str
    table: Table
    marks: tuple[str, ...]
    sections: bool = True
    comments: bool = False
    defaults: Callable[[Mapping[str, Any]], Defaults] = lambda others: {}

    def told(self, given: Mapping[str, Any]) -> bool:
        """Whether a document is one of this dialect."""
        axolotls = "base_model" in given and "model_name_or_path" not in given
        if axolotls and not self.sections:  # with another tool's word in it
            return False
        return any(given.keys() >= set(mark.split()) for mark in self.marks)


@dataclass(frozen=True)
class Foreign:
    """A file that is known and not translated: whose it is, and what to do instead."""

    name: str
    marks: tuple[str, ...]
    instead: str

    def told(self, given: Mapping[str, Any]) -> bool:
        """Whether a document is one of these."""
        names = {*given, *_inside(given)}
        return any(names >= set(mark.split()) for mark in self.marks)


def _inside(value: Any) -> Iterator[str]:
    """torchtune's word for a class, wherever it stands."""
    if isinstance(value, Mapping):
        yield from ("_component_" for name in value if name == "_component_")
        for item in value.values():
            yield from _inside(item)
    elif isinstance(value, list):
        for item in value:
            yield from _inside(item)


def _table_at(heading: str) -> str:
    return f"its names stand beside Axolotl's in {_PAGE}#{heading}"


# Before the dialects: a name of these may be one of theirs too.
FOREIGN = (
    Foreign("torchtune", ("_component_",), _table_at("torchtune")),
    Foreign(
        "Unsloth",
        ("model_name max_seq_length", "model_name load_in_4bit", "use_gradient_checkpointing"),
        _table_at("unsloth"),
    ),
    Foreign(
        "LLaMA-Factory's v1",
        ("model_class", "model peft_config", "model dist_config", "model train_dataset"),
        _table_at("llama-factory"),
    ),
    Foreign("ms-swift", ("train_type", "tuner_type"), _table_at("llama-factory")),
    Foreign(
        "accelerate",
        ("compute_environment", "distributed_type num_processes"),
        'name it in SFT_ACCELERATE_LAUNCH_ARGS={"config_file": "PATH"}',
    ),
    Foreign(
        "DeepSpeed",
        ("zero_optimization", "train_micro_batch_size_per_gpu"),
        "name it in AXOLOTL_DEEPSPEED",
    ),
    Foreign("PEFT", ("peft_type",), "name the adapter's folder in AXOLOTL_LORA_MODEL_DIR"),
    Foreign("a model", ("architectures model_type",), "name its folder in AXOLOTL_BASE_MODEL"),
    Foreign("Kubernetes", ("apiVersion kind",), "give what its ConfigMap holds, not the manifest"),
)
TRAINER = Dialect(
    "the SFT trainer", trainer.TABLE, trainer.MARKS, sections=False, defaults=trainer.defaults
)
DIALECTS = (
    Dialect(
        "the compose pipeline",
        compose.TABLE,
        ("paths", "preprocess", "train", "logging"),
        defaults=compose.defaults,
    ),
    Dialect(
        "the industrial pipeline's training",
        industrial.TRAINING,
        ("training_params", "lora_config", "evaluation_config", "eval_prompts"),
        comments=True,
    ),
    Dialect(
        "LLaMA-Factory",
        llamafactory.TABLE,
        llamafactory.MARKS,
        sections=False,
        defaults=llamafactory.defaults,
    ),
    Dialect(
        "the industrial pipeline's data",
        industrial.DATA,
        ("output_params", "quality_filters", "template"),
        comments=True,
        defaults=industrial.defaults,
    ),
    TRAINER,
    Dialect("TRL", trl.TABLE, trl.MARKS, sections=False, defaults=trl.defaults),
    Dialect(
        "transformers' TrainingArguments",
        trainer.TABLE,
        trainer.ARGUMENTS_MARKS,
        sections=False,
        defaults=trainer.arguments_defaults,
    ),
)


@functools.cache
def flags() -> frozenset[str]:
    """Every flag of the SFT trainer: its own, and those of TrainingArguments."""
    return frozenset([*trainer.TABLE, *upstream.trainer()["flags"]])

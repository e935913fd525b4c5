"""The frozen types between the stages of resolving: Facts in, RunConfig out."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from envtune.errors import Problem
from envtune.machine.hardware import Machine
from envtune.machine.rendezvous import Rendezvous
from envtune.resolve.facts import DataFacts, ModelFacts, TokenizerFacts
from envtune.resolve.plan.choose import Plan
from envtune.settings.own import OWN
from envtune.settings.own.preparation import DECISIVE
from envtune.settings.sources import Inputs
from envtune.settings.typed import Settings


@dataclass(frozen=True)
class Tracking:
    """What the environment says about the trackers. No secret is in here."""

    wandb_key: bool = False
    wandb_mode: str = ""
    wandb_project: str = ""
    mlflow_uri: str = ""
    mlflow_experiment: str = ""
    tensorboard: str = ""


@dataclass(frozen=True)
class Parallel:
    """How training spreads: the preset, ranks on each node, nodes, and why.

    `base` holds the keys of the user's own accelerate file.
    """

    preset: str = "single"
    local: int = 1
    nodes: int = 1
    reason: str = "one device"
    base: Mapping[str, Any] = field(default_factory=dict)

    @property
    def world(self) -> int:
        """Ranks on all nodes."""
        return self.local * self.nodes


@dataclass(frozen=True)
class Facts:
    """Everything a rule may look at besides the values chosen so far.

    `where` is this node; `outputs` and `logs` are the folders of the runs and of their logs.
    `problems` and `warnings` are what was found wrong while looking. `plan` is made of all this and
    of the values that the method's rules have chosen.
    """

    machine: Machine
    model: ModelFacts
    data: tuple[DataFacts, ...]
    device: str
    tokenizer: TokenizerFacts | None = None
    test_data: tuple[DataFacts, ...] = ()
    local: bool = True  # nothing has to come from the Hub
    tracking: Tracking = Tracking()
    parallel: Parallel = Parallel()
    plan: Plan | None = None
    unfit: str = ""  # what LoRA on 16 bits would need, where that is too much
    where: Rendezvous = field(default_factory=Rendezvous)
    outputs: str = ""
    logs: str = ""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """What a rule decides, and why in a few words."""

    value: Any
    reason: str


# Keys that change what is shown or kept, not what is learned: with another value it is
# the same run.
_INDIFFERENT = (
    "logging_steps", "save_steps", "save_strategy", "saves_per_epoch", "save_total_limit",
    "use_wandb", "wandb_", "use_mlflow", "mlflow_", "hf_mlflow_", "use_comet", "comet_",
    "use_trackio", "trackio_", "use_tensorboard", "hub_", "push_to_hub", "otel_", "use_otel_",
)  # fmt: skip


def is_indifferent(key: str) -> bool:
    """Whether a key of Axolotl's decides nothing that is learned."""
    return key.startswith(_INDIFFERENT)


# What is chosen so far, as a rule sees it: Axolotl's keys and plain values.
Chosen = Mapping[str, Any]


@dataclass(frozen=True)
class Value:
    """A resolved value. `source` is the variable's name, or envtune where a rule chose."""

    value: Any
    source: str
    reason: str = ""


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what is trained and how it is started.

    `axolotl` is what the YAML holds, in its order. `output_dir` is the folder that the
    user named, or None for one under the outputs folder. `untyped` are the data sets of each key
    whose rows say themselves how they read. `device` is cpu or cuda. `plan` is what the choices
    were made by, where there is one; it decides nothing more. Which node this is and where
    the others meet is not part of it: `rendezvous` knows.
    """

    axolotl: Mapping[str, Value]
    own: Mapping[str, Value]
    device: str
    parallel: Parallel = Parallel()
    plan: Plan | None = None
    output_dir: str | None = None
    resume_from: str | None = None
    offline: bool = False
    untyped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    warnings: tuple[str, ...] = field(default=())
    notes: tuple[str, ...] = field(default=())

    def plain(self) -> dict[str, Any]:
        """Axolotl's values alone."""
        return {key: value.value for key, value in self.axolotl.items()}

    def setting(self, name: str) -> Any:
        """The value of one of envtune's own settings."""
        return self.own[name].value

    def key(self, contents: Mapping[str, str]) -> str:
        """The run's key: a digest of all that decides the result.

        `contents` maps each local path to a digest of what lies there. The digest stands
        in for the path, so a moved file is the same and a changed file is another run.
        """
        decisive = {
            "axolotl": _replaced(
                {key: v for key, v in self.plain().items() if not is_indifferent(key)},
                contents,
            ),
            "device": self.device,
            "parallel": dataclasses.asdict(replace(self.parallel, reason="")),
            "resume_from": contents.get(self.resume_from or "", self.resume_from),
            **self._preparation(),
        }
        text = json.dumps(decisive, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _preparation(self) -> dict[str, Any]:
        """What decides which rows are trained beside Axolotl's keys, where it is not the default:
        a run that prepares nothing keeps the key that it had before there was a preparation."""
        made = {name: self.own[name].value for name in DECISIVE if name in self.own}
        asked = {name: value for name, value in made.items() if value != OWN[name].default}
        return {"preparation": asked} if asked else {}


@dataclass(frozen=True)
class Configuration:
    """A RunConfig and what it was made from."""

    config: RunConfig
    settings: Settings
    inputs: Inputs
    facts: Facts


def _replaced(value: Any, contents: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return contents.get(value, value)
    if isinstance(value, Mapping):
        return {name: _replaced(item, contents) for name, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, contents) for item in value]
    return value

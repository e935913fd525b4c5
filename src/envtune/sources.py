"""Reads the environment and the command line into layers. The only reader of os.environ.

A layer is a list of entries in the order of precedence below; within a layer nothing
is typed yet and nothing is refused except what cannot be told apart.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from envtune import upstream
from envtune.contract import OWN

AXOLOTL = "AXOLOTL_"
SFT = "SFT_"

# Kubernetes puts SFT_TRAINER_PORT=tcp://10.0.0.1:80 and the like into every pod when a
# Service is called sft-trainer or axolotl.
_SERVICE_LINK = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)

SECRETS = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "WANDB_API_KEY",
    "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "COMET_API_KEY",
    "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RUNPOD_API_KEY",
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One name as the user typed it, and its text."""

    name: str
    text: str


@dataclass(frozen=True)
class Layer:
    """Entries of one source. `name` is what a reader calls it."""

    name: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Inputs:
    """Everything that was given: layers from weak to strong, and the plain environment."""

    layers: tuple[Layer, ...]
    environ: Mapping[str, str]
    notes: tuple[str, ...]

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that may appear nowhere."""
        return tuple(value for name in SECRETS if (value := self.environ.get(name)))


def is_ours(name: str) -> bool:
    """Whether a variable is one that envtune takes for a setting. `axolotl_x` is too: a
    wrong case is refused later, with the right name, instead of being passed over."""
    reserved = upstream.axolotl()["reserved"]
    return (name.upper().startswith((AXOLOTL, SFT)) or name in OWN) and name not in reserved


def read(arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Inputs:
    """Reads the environment and `NAME=VALUE` arguments."""
    environ = dict(os.environ if environ is None else environ)
    entries, notes = [], []
    for name in sorted(filter(is_ours, environ)):
        if _is_service_link(name, environ[name]):
            notes.append(f"{name} looks like a Kubernetes service link and is ignored")
        elif environ[name] == "":
            notes.append(f"{name} is empty and counts as not set")
        else:
            entries.append(Entry(name, environ[name]))
    layers = [
        Layer("environment", tuple(e for e in entries if not e.name.startswith(AXOLOTL))),
        Layer("environment", tuple(e for e in entries if e.name.startswith(AXOLOTL))),
        Layer("command line", tuple(Entry(*a.split("=", 1)) for a in arguments)),
    ]
    return Inputs(tuple(layers), environ, tuple(notes))


def _is_service_link(name: str, value: str) -> bool:
    """A bare `SFT_TRAINER_PORT` needs an address to be one; the longer names speak alone."""
    match = _SERVICE_LINK.search(name)
    if match is None:
        return False
    return match[0] != "_PORT" or value.startswith(("tcp://", "udp://", "sctp://"))


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets."""
    for secret in secrets:
        text = text.replace(secret, "[secret]")
    return text

"""Reads the environment and the command line into layers. The only reader of os.environ.

A layer is a list of entries in the order of precedence below; within a layer nothing
is typed yet and nothing is refused except what cannot be told apart.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

from envtune import documents, upstream
from envtune.contract import OWN
from envtune.errors import Problem, Refused

AXOLOTL = "AXOLOTL_"
SFT = "SFT_"
_CHANNEL = "ENVTUNE_"
# How alike a name has to be to one of ours before it counts as a slip, 0 to 1.
_NEAR = 0.87

# Kubernetes puts SFT_TRAINER_PORT=tcp://10.0.0.1:80 and the like into every pod when a
# Service is called sft-trainer or axolotl.
_SERVICE_LINK = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)

# The Hub's token: its name and the two old ones.
HUB_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN")

# Secrets that may come from a file, as <NAME>_FILE (Docker's and Kubernetes' way). Not every
# name in _TOKEN is here: AWS_WEB_IDENTITY_TOKEN_FILE is AWS's own and stays a path.
_FROM_FILES = (
    *HUB_TOKENS, "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    "COMET_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RUNPOD_API_KEY",
)  # fmt: skip
_SECRET_NAME = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS)$")
# A user or a password in a URL, also in one inside JSON.
USERINFO = re.compile(r"://([^/\s@\"]+)@")
# A key in a URL's query, a signed URL's signature among them.
_KEY_IN_QUERY = re.compile(
    r"[?&][\w.-]*(token|key|secret|passw(or)?d|sig|signature|credential)=", re.IGNORECASE
)
# Shorter values are words that a log may hold for other reasons.
_SECRET_LENGTH = 8


@dataclass(frozen=True)
class Entry:
    """One name as the user typed it, and its text.

    From a document the name is the document's, `value` has a type already, and `document`
    is the variable that named it.
    """

    name: str
    text: str
    value: Any = None
    document: str = ""

    @property
    def label(self) -> str:
        """What a line about this entry begins with."""
        return f"{self.document}: {self.name}" if self.document else self.name


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
    def passed_on(self) -> dict[str, str]:
        """The environment that children see: without settings and without our own channel."""
        return {
            name: value
            for name, value in self.environ.items()
            if not is_ours(name) and not name.startswith(_CHANNEL)
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        """Values that may appear nowhere: by the variable's name, or before a URL's @."""
        named = {v.strip() for n, v in self.environ.items() if _SECRET_NAME.search(n.upper())}
        in_urls = {found for v in self.environ.values() for found in USERINFO.findall(v)}
        parts = {part for found in in_urls for part in found.split(":")}
        return tuple(s for s in named | in_urls | parts if len(s) >= _SECRET_LENGTH)


def is_ours(name: str) -> bool:
    """Whether a variable is one that envtune takes for a setting. `axolotl_x` is too: a
    wrong case is refused later, with the right name, instead of being passed over."""
    if name in upstream.axolotl()["reserved"]:
        return False
    return name.upper().startswith((AXOLOTL, SFT)) or name.upper() in OWN


def has_key_in_url(text: str) -> bool:
    """Whether a URL in `text` holds a user, a password or a key."""
    return bool(USERINFO.search(text) or ("://" in text and _KEY_IN_QUERY.search(text)))


def _nearly_ours(name: str) -> bool:
    """Whether a variable was probably meant for envtune: AXOLTL_X, AXOLOTLBASE_MODEL, SF_RERUN."""
    if name in upstream.axolotl()["reserved"]:
        return False
    start = SequenceMatcher(None, name[: len(AXOLOTL)].upper(), AXOLOTL)
    return start.ratio() > _NEAR or bool(get_close_matches(name.upper(), OWN, n=1, cutoff=_NEAR))


def read(arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None) -> Inputs:
    """Reads the environment, the files of secrets and `NAME=VALUE` arguments.

    Raises Refused where a secret's file cannot be read, or the secret is set beside it.
    """
    environ = _with_secrets(os.environ if environ is None else environ)
    entries, notes = [], []
    for name in sorted(n for n in environ if is_ours(n) or _nearly_ours(n)):
        if _is_service_link(name, environ[name]):
            notes.append(f"{name} looks like a Kubernetes service link and is ignored")
        else:
            entries.append(Entry(name, environ[name]))
    given = [Entry(name, text) for name, _, text in (a.partition("=") for a in arguments)]
    notes += [f"{e.name} is empty and counts as not set" for e in [*entries, *given] if _empty(e)]
    entries, given = ([e for e in several if not _empty(e)] for several in (entries, given))
    layers = [
        Layer("environment", tuple(e for e in entries if not e.name.startswith(AXOLOTL))),
        Layer("environment", tuple(e for e in entries if e.name.startswith(AXOLOTL))),
        Layer("command line", tuple(given)),
    ]
    return Inputs(tuple(layers), environ, tuple(notes))


def _with_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with each secret that a <NAME>_FILE points to under its own name."""
    found, problems = dict(environ), []
    for name in _FROM_FILES:
        path = found.pop(f"{name}_FILE", "")
        if path and found.get(name):
            problems.append(Problem(f"{name}_FILE", f"is set and so is {name}; unset one of them"))
        elif path:
            try:
                found[name] = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                why = getattr(error, "strerror", None) or "it is no text"
                problems.append(Problem(f"{name}_FILE", f"{path} cannot be read: {why}"))
    if problems:
        raise Refused(problems)
    return found


def with_documents(inputs: Inputs) -> Inputs:
    """`inputs` with the layers of the documents that they name. Raises Refused."""
    named = {e.name: e for layer in inputs.layers for e in layer.entries if e.name in _DOCUMENTS}
    layers, problems = [], []
    for name, (label, parse) in _DOCUMENTS.items():
        if name in named:
            try:
                found = parse(named[name].text)
            except documents.DocumentError as error:
                problems.append(Problem(name, str(error)))
            else:
                layers.append(Layer(label, tuple(_entries(found, name))))
    if problems:
        raise Refused(problems)
    return replace(inputs, layers=(*layers, *inputs.layers))


def _entries(document: Mapping[str, Any], variable: str) -> Iterator[Entry]:
    for name, value in document.items():
        yield Entry(str(name), json.dumps(value, default=str), value, variable)


# Weak before strong: the base64 wins over the file, as in the SFT trainer's image.
_DOCUMENTS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "SFT_TRAINER_CONFIG_JSON_PATH": ("file", lambda text: documents.read_file(Path(text))),
    "SFT_TRAINER_CONFIG_JSON_ENV_VAR": ("base64", documents.decode),
}


def _empty(entry: Entry) -> bool:
    return not entry.text.strip()


def _is_service_link(name: str, value: str) -> bool:
    """A bare `SFT_TRAINER_PORT` needs an address to be one; the longer names speak alone."""
    match = _SERVICE_LINK.search(name)
    if match is None:
        return False
    return match[0] != "_PORT" or value.startswith(("tcp://", "udp://", "sctp://"))


def redact(text: str, secrets: Sequence[str]) -> str:
    """`text` without the secrets."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "[secret]")
    return text

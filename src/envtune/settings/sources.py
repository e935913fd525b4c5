"""Reads the environment and the command line into layers. The only reader of os.environ.

A layer is a list of entries; PRECEDENCE orders them. Within a layer nothing is typed yet and
nothing is refused except what cannot be told apart.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import Any

from envtune import redaction
from envtune.errors import Problem, Refused
from envtune.machine import certificates
from envtune.machine.certificates import CA_BUNDLE, INSECURE
from envtune.settings import data_documents, documents, runtime, upstream
from envtune.settings.own import OWN, profiles
from envtune.settings.own.place import NOTIFY, STATUS_TOKEN
from envtune.settings.spelling import env_file

AXOLOTL = "AXOLOTL_"
SFT = "SFT_"
_CHANNEL = "ENVTUNE_"
# How alike a name has to be to one of ours before it counts as a slip, 0 to 1.
_NEAR = 0.87
# How many letters the beginning of such a name shares with AXOLOTL_, of its six.
_SHARED = 4

# Kubernetes puts SFT_TRAINER_PORT=tcp://10.0.0.1:80 and the like into every pod when a
# Service is called sft-trainer or axolotl.
_SERVICE_LINK = re.compile(
    r"_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$"
)

# Secrets that may come from a file, as <NAME>_FILE (Docker's and Kubernetes' way). Not every
# name that is a secret is here: AWS_WEB_IDENTITY_TOKEN_FILE is AWS's own and stays a path.
SECRET_FILES = (
    *redaction.HUB_TOKENS, "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN",
    "COMET_API_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "RUNPOD_API_KEY", "VLLM_API_KEY",
    STATUS_TOKEN, NOTIFY,
)  # fmt: skip
# The layers from weak to strong. Below them are Axolotl's defaults and envtune's.
PRECEDENCE = ("profile", "template", "file", "base64", "SFT_", "AXOLOTL_", "command line")


@dataclass(frozen=True)
class Entry:
    """One name as the user typed it, and its text.

    From a document the name is the document's, `value` has a type already, and `document`
    is the variable that named it. A dialect puts the key that is meant into `key` (dotted
    where it lies inside another) and may have `made` the value.
    """

    name: str
    text: str
    value: Any = None
    document: str = ""
    key: str = ""
    made: bool = False

    @property
    def structured(self) -> bool:
        """Whether `value` has a type already and `text` only shows it."""
        return bool(self.document) or self.made

    @property
    def label(self) -> str:
        """What a line about this entry begins with."""
        return f"{self.document}: {self.name}" if self.document else self.name


@dataclass(frozen=True)
class Layer:
    """Entries of one source. `name` is what a reader calls it."""

    name: str
    entries: tuple[Entry, ...]


# What the compose pipeline's targets call it. As a variable the name is anybody's.
_ARGUMENTS = {"CONFIG": "SFT_TRAINER_CONFIG_JSON_PATH"}
# Needed before a document can be read, with those that name one.
_EARLY = ("SFT_PROFILE", CA_BUNDLE, INSECURE)


@dataclass(frozen=True)
class Inputs:
    """Everything that was given: layers from weak to strong, and the plain environment.

    `problems` are of variables that hold more than what was meant; they are in no layer.
    """

    layers: tuple[Layer, ...]
    environ: Mapping[str, str]
    notes: tuple[str, ...]
    problems: tuple[Problem, ...] = ()

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
        """Values that may appear nowhere."""
        return redaction.secrets(self.environ)


def is_ours(name: str) -> bool:
    """Whether a variable is one that envtune takes for a setting. `axolotl_x` is too: a
    wrong case is refused later, with the right name, instead of being passed over."""
    if name in upstream.axolotl()["reserved"]:
        return False
    return name.upper().startswith((AXOLOTL, SFT)) or name.upper() in OWN


def _nearly_ours(name: str) -> bool:
    """Whether a variable was probably meant for envtune: AXOLTL_X, AXOLOTLBASE_MODEL, SF_RERUN."""
    if name in upstream.axolotl()["reserved"]:
        return False
    upper = name.upper()
    start = upper[: len(AXOLOTL)]
    if len(set(start) & set(AXOLOTL)) >= _SHARED:
        return SequenceMatcher(None, start, AXOLOTL).ratio() > _NEAR or _is_near(upper)
    return _is_near(upper)


def _is_near(name: str) -> bool:
    """Whether a name is nearly one of ours. difflib is slow: it sees those that may be."""
    alike = [own for own in OWN if own[:2] == name[:2] or own[-2:] == name[-2:]]
    return bool(get_close_matches(name, alike, n=1, cutoff=_NEAR))


def read(
    arguments: Sequence[str] = (), environ: Mapping[str, str] | None = None, *, files: bool = True
) -> Inputs:
    """Reads the environment, the files of secrets (unless not `files`) and `NAME=VALUE` arguments.

    Raises Refused where a secret's file cannot be read, or the secret is set beside it.
    """
    environ = os.environ if environ is None else environ
    meant, mended, problems = env_file.mended(environ, is_ours)
    named = _with_secrets(meant) if files else meant
    found, notes = runtime.translated(named)
    given = [
        Entry(_ARGUMENTS.get(name, name), text)
        for name, _, text in (a.partition("=") for a in arguments)
    ]
    early = {entry.name: entry.text for entry in given if entry.name in _EARLY}
    found, told = certificates.trusted({**found, **early})
    shown = redaction.hidden(found)
    entries, ignored = _entries_of(found)
    notes += [*mended, *told, *ignored, *runtime.passed_over(found), *env_file.unprefixed(found)]
    notes += [f"{e.name} is empty and counts as not set" for e in [*entries, *given] if _empty(e)]
    entries, given = ([e for e in several if not _empty(e)] for several in (entries, given))
    layers = [
        Layer("SFT_", tuple(e for e in entries if not e.name.startswith(AXOLOTL))),
        Layer("AXOLOTL_", tuple(e for e in entries if e.name.startswith(AXOLOTL))),
        Layer("command line", tuple(given)),
    ]
    return Inputs(tuple(layers), shown, tuple(notes), tuple(problems))


def _entries_of(environ: Mapping[str, str]) -> tuple[list[Entry], list[str]]:
    """The variables that are meant for envtune, and a note for each that only looks so."""
    entries, notes = [], []
    for name in sorted(n for n in environ if is_ours(n) or _nearly_ours(n)):
        if _is_service_link(name, environ[name]):
            notes.append(f"{name} looks like a Kubernetes service link and is ignored")
        else:
            entries.append(Entry(name, environ[name]))
    return entries, notes


def _with_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` with each secret that a <NAME>_FILE points to under its own name."""
    found, problems = dict(environ), []
    for name in SECRET_FILES:
        path = found.pop(f"{name}_FILE", "")
        if path and found.get(name):
            problems.append(Problem(f"{name}_FILE", f"is set and so is {name}; unset one of them"))
        elif path:
            try:
                found[name] = documents.read_text(Path(path)).strip()
            except documents.DocumentError as error:
                problems.append(Problem(f"{name}_FILE", str(error)))
    if problems:
        raise Refused(problems)
    return found


def with_documents(inputs: Inputs) -> Inputs:
    """`inputs` with the layers of the profile and the documents that they name. Raises Refused."""
    named = {e.name: e.text for layer in inputs.layers for e in layer.entries}
    found: dict[str, list[Entry]] = {
        "profile": [],
        **{label: [] for label, _ in _DOCUMENTS.values()},
    }
    notes, problems = [], []
    if profile := named.get("SFT_PROFILE"):
        values = documents.Document(profiles.PROFILES.get(profile, {}))
        found["profile"] += _entries(values, "SFT_PROFILE")
    for name, (label, read_document) in _DOCUMENTS.items():
        try:
            document = read_document(named[name]) if name in named else None
        except documents.DocumentError as error:
            problems.append(Problem(name, str(error)))
            continue
        if document is not None:
            found[label] += _entries(document, name)
            notes += [f"{name}: {note}" for note in document.notes]
    for entry in (entry for entries in found.values() for entry in entries):
        if entry.name in _EARLY or entry.name in _DOCUMENTS:
            problems.append(Problem(entry.label, "is read before any file; set it as a variable"))
    if problems:
        raise Refused(problems)
    layers = [Layer(label, tuple(entries)) for label, entries in found.items()]
    layers = [_logging(inputs.environ), *layers, *inputs.layers]
    return replace(inputs, layers=tuple(layers), notes=(*inputs.notes, *notes))


def _logging(environ: Mapping[str, str]) -> Layer:
    """LOG_LEVEL as the SFT trainer's image takes it: any other setting is stronger."""
    said = runtime.level(environ)
    entries = [Entry("LOG_LEVEL", said, said, key="SFT_LOG_LEVEL", made=True)] if said else []
    return Layer("environment", tuple(entries))


def _entries(document: documents.Document, variable: str) -> Iterator[Entry]:
    for name, value in document.values.items():
        yield Entry(str(name), as_text(value), value, variable, str(name) if document.ours else "")


def as_text(value: Any) -> str:
    """A typed value as a variable would hold it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _file(text: str) -> documents.Document:
    return documents.read_file(Path(text))


# Weak before strong: the base64 wins over the file, as in the SFT trainer's image.
_DOCUMENTS: dict[str, tuple[str, Callable[[str], documents.Document | None]]] = {
    "SFT_TEMPLATE": ("template", lambda text: documents.read_defaults(Path(text))),
    "SFT_TRAINER_CONFIG_JSON_PATH": ("file", _file),
    "SFT_DATASET_CONFIG": ("file", data_documents.described),
    "SFT_DATA_DIRS": ("file", data_documents.prepared),
    "SFT_TRAINING_CONFIG": ("file", _file),
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

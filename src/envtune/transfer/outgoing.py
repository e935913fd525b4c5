"""What of a run goes out, laid out in a folder as it is published.

Only the files of an artifact and the model card do: no checkpoint, no data, no log and no
configuration. A local path in a configuration becomes its last part, and a file that holds
a secret stops everything.
"""

import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import checkpoints, modelfiles
from envtune.redaction import forms, has_user_in_url
from envtune.settings.own.stages import QUANTISED
from envtune.settings.sources import Inputs

CARD = "README.md"
# The folders of a run that are an artifact each.
_FOLDERS = ("adapter", "model", "merged", *QUANTISED.values())
_PATHS = ("base_model_name_or_path", "_name_or_path", "name_or_path")
_WEIGHTS = (".safetensors", ".bin")
# The longest header of a safetensors file.
_HEADER = 100 << 20


@dataclass(frozen=True)
class Artifact:
    """What is published: a folder of the run by the name below which it goes out.

    `kind` is that folder's name, or what the export made in serving/: embedding-lora, resized.
    """

    kind: str
    parts: Mapping[str, Path]

    @property
    def adapts(self) -> bool:
        """Whether it is nothing without a base model."""
        return self.kind in ("adapter", "embedding-lora")


def choose(folder: Path, what: str, export: Mapping[str, Any], *, awq: bool) -> Artifact:
    """The artifact of a run folder, by SFT_PUSH_WHAT and the export's record.

    `auto` is the one that serves. Raises LookupError where the run has no such.
    """
    made = str(export.get("kind", "plain"))
    if what == "auto":
        what = _serving(folder, made, awq=awq)
    artifact = _named(folder, what, made)
    for path in artifact.parts.values():
        if not path.is_dir():
            there = [name for name in _FOLDERS if (folder / name).is_dir()]
            lost = path.relative_to(folder)
            raise LookupError(f"the run has no {lost}/; it has {', '.join(there)}")
    return artifact


def _named(folder: Path, what: str, made: str) -> Artifact:
    serving = folder / "serving"
    if what != "serving":
        return Artifact(what, {"": folder / what})
    if made == "resized":
        return Artifact("resized", {"base": serving / "base", "adapter": serving / "adapter"})
    kind = "embedding-lora" if made == "embedding-lora" else "adapter"
    return Artifact(kind, {"": serving / "adapter"})


def _serving(folder: Path, made: str, *, awq: bool) -> str:
    if awq and (smaller := [name for name in QUANTISED.values() if (folder / name).is_dir()]):
        return smaller[0]
    if (folder / "model").is_dir():
        return "model"
    return {"merged": "merged", "plain": "adapter"}.get(made, "serving")


def lay_out(artifact: Artifact, card: str, target: Path) -> None:
    """Makes the folder that goes out. Weights are linked, not copied, where they can be."""
    shutil.rmtree(target, ignore_errors=True)
    for name, folder in artifact.parts.items():
        adapter = artifact.adapts or name == "adapter"
        names = checkpoints.artifact_files(folder, adapter=adapter)
        checkpoints.link(folder, target / name, names)
        for path in (target / name).glob("*config.json"):
            _without_paths(path)
    files.write_text(target / CARD, card)


def _without_paths(path: Path) -> None:
    """A path of this machine means nothing elsewhere, and tells whose machine it is."""
    held = modelfiles.read_json(path)
    local = {k: Path(held[k]).name for k in _PATHS if str(held.get(k) or "").startswith("/")}
    if local:
        path.unlink()  # the link, not the run's own file
        files.write_json(path, {**held, **local})


def leaks(folder: Path, environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each file that holds a secret of the environment, or a key in a URL."""
    secrets = Inputs((), environ, ()).secrets
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = _text(path)
        name = path.relative_to(folder)
        if held := next((s for s in secrets if any(f.encode() in content for f in forms(s))), None):
            whose = next((n for n, value in environ.items() if held in value), "a URL")
            yield f"{name} holds the secret of {whose}"
        elif path.suffix not in _WEIGHTS and has_user_in_url(content.decode(errors="replace")):
            yield f"{name} holds a URL with a user or a password"


def _text(path: Path) -> bytes:
    """What people could read in a file: of weights the header."""
    with path.open("rb") as stream:
        if path.suffix not in _WEIGHTS:
            return stream.read()
        size = struct.unpack("<Q", stream.read(8))[0] if path.suffix == ".safetensors" else 0
        return stream.read(min(size, _HEADER))

"""What a run says about its layout, in its config folder; read wherever it is served or shown."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from envtune import files

CHAT = "/v1/chat/completions"
FILE, PROOF, GENERATION = "layout.json", "proof.json", "generation_config.json"


@dataclass(frozen=True)
class Told:
    """The layout of a run's answers: the type of the data that it is of, the chat template, why
    it is no chat, what stands before an answer, the ids that end one, the call that is right, what
    it names besides messages and whether it may have a system message, the data set, and the
    layouts of the other data sets."""

    name: str
    template: str
    reason: str = ""
    begins: str = ""
    stops: list[int] = field(default_factory=list)
    example: dict[str, Any] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    system: bool = True
    data: str = ""
    others: list[str] = field(default_factory=list)

    def write(self, path: Path) -> None:
        files.write_json(path, asdict(self))


def is_named(wanted: str, number: int, path: str, kind: object) -> bool:
    """Whether a data set is the one that a user means: its number from 0, its path or the end of
    it, or its type."""
    ending = f"/{wanted.removeprefix('./').strip('/')}"
    return wanted in (str(number), path, kind) or f"/{path.strip('/')}".endswith(ending)


def read(run: Path) -> Told | None:
    """The layout of a run in its folder, or None where it was trained without one."""
    path = run / "config" / FILE
    return Told(**files.read_json(path)) if path.exists() else None


def proof(run: Path) -> list[dict[str, Any]]:
    """Rows of a run as requests, with the ids that they were trained as."""
    path = run / "config" / PROOF
    rows: list[dict[str, Any]] = files.read_json(path) if path.exists() else []
    return rows


def generation_config(stops: Sequence[int], folder: Path) -> dict[str, Any]:
    """What a server reads as generation_config.json: the ids that begin, fill and end a text. Of a
    base's own the rest goes: its max_new_tokens would cap every answer, and its sampling is of
    another model."""
    path = folder / GENERATION
    base = files.read_json(path) if path.exists() else {}
    kept = {key: base[key] for key in ("bos_token_id", "pad_token_id") if key in base}
    return {**kept, "eos_token_id": list(stops)}

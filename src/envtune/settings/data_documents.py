"""Documents that describe data: the industrial pipeline's, several as one, and prepared folders.

Several are one where they agree on all but the data sets. Data that is prepared in different ways
is prepared apart, and its folders are named.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from envtune import files
from envtune.settings import documents
from envtune.settings.documents import Document, DocumentError

# What a prepared folder holds beside its rows: written last, so that it marks the folder whole.
STATE = "training_state.json"
# What names a description and asks for nothing.
_NAMES = ("name", "description", "version", "model_target", "processing_metadata")


def named(text: str) -> list[str]:
    """The paths in a variable: a JSON list, or with commas between. Raises DocumentError."""
    if text.lstrip().startswith("["):
        found = documents.parse(text, "its value", ".json")
        if not isinstance(found, list) or not all(map(_is_path, found)):
            raise DocumentError('has to be a list of paths, such as ["a", "b"]')
        return list(found)
    several = [part.strip() for part in text.split(",") if part.strip()]
    return several if not os.path.exists(text) else [text]  # False for a name that is too long


def _is_path(value: Any) -> bool:
    """Whether a value may be a path: half of a character or a NUL is in none."""
    try:
        return isinstance(value, str) and b"\0" not in os.fsencode(value)
    except UnicodeEncodeError:
        return False


def described(text: str) -> Document:
    """The descriptions that a variable names, as one. Raises DocumentError."""
    paths = named(text)
    read = [documents.read_file(Path(path)) for path in paths]
    notes = tuple(note for one in read for note in one.notes)
    if len(read) == 1:
        return Document(read[0].values, notes)
    values: dict[str, Any] = {"datasets": []}
    for path, one in zip(paths, read, strict=True):
        rest = {name: value for name, value in one.values.items() if not _is_name(name)}
        sets = rest.pop("datasets", None)
        if not isinstance(sets, list):
            raise DocumentError(f"{path} has no list of datasets")
        values["datasets"] += sets
        _agree(values, rest, path, paths[0])
    return Document(values, notes)


def _is_name(name: str) -> bool:
    return name in _NAMES or name.startswith("_")


def _agree(values: dict[str, Any], rest: dict[str, Any], path: str, first: str) -> None:
    if path == first:
        values |= rest
    differing = sorted({n for n in {*values, *rest} - {"datasets"} if values.get(n) != rest.get(n)})
    if differing:
        raise DocumentError(
            f"{path} says {', '.join(differing)} otherwise than {first}; prepare each with "
            "`envtune prepare` and name the folders in SFT_DATA_DIRS"
        )


def prepared(text: str) -> Document:
    """The data sets in the folders that a variable names. Raises DocumentError."""
    states = [(Path(path), _state(Path(path))) for path in named(text)]
    if not states:
        raise DocumentError("names no folder")
    values: dict[str, Any] = {"datasets": list(_sets(states, "train"))}
    if held := list(_sets(states, "val")):
        values["test_datasets"] = held
    if marks := _marks(states):
        values["response_template"] = marks[0] if len(marks) == 1 else marks
    return Document(values, ours=True)


def _marks(states: Sequence[tuple[Path, dict[str, Any]]]) -> list[str]:
    """The marks after which answers are trained. Raises DocumentError for several, of which one
    could be any row's: a layout has its own."""
    told = [(path, state.get("response_template")) for path, state in states]
    marks = list(dict.fromkeys(mark for _, mark in told if mark))
    laid_out = all("input_format" in file["keys"] for _, state in states for file in state["files"])
    if len({mark for _, mark in told}) > 1 and not (laid_out and all(mark for _, mark in told)):
        several = ", ".join(f"{folder} {mark!r}" for folder, mark in told)
        what = "trains plain text after different marks, and one run has one"
        raise DocumentError(f"{what}: {several}")
    return marks


def _state(folder: Path) -> dict[str, Any]:
    try:
        state = files.read_json(folder / STATE)
    except FileNotFoundError:
        what = f"{folder} is no folder that `envtune prepare` has finished: it has no {STATE}"
        raise DocumentError(what) from None
    except (OSError, ValueError) as error:
        raise DocumentError(f"{folder / STATE} cannot be read: {error}") from None
    if not isinstance(state, dict) or not isinstance(state.get("files"), list):
        raise DocumentError(f"{folder / STATE} is not what `envtune prepare` writes")
    return state


def _sets(states: Sequence[tuple[Path, dict[str, Any]]], split: str) -> Iterator[dict[str, Any]]:
    for folder, state in states:
        for file in state["files"]:
            if file["split"] == split:
                path = str((folder / file["path"]).absolute())
                yield {"path": path, "ds_type": "json", **file["keys"]}

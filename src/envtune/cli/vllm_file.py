"""A YAML of vLLM's flags, as `vllm serve --config` reads one, for the server of a run."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.errors import Problem, Refused
from envtune.runs import folders
from envtune.runs.contents import MERGED
from envtune.runs.folders import Run
from envtune.serve.vllm_config import OWNED
from envtune.settings import documents, upstream
from envtune.settings.own import SERVE_FLAG
from envtune.settings.spelling.nearest import nearest

_LORA = "lora_modules"
_WHOLE = (MERGED, "model")
# Flags that envtune decides, and that a file may hold all the same.
_TAKEN = {"model", "enable_lora"}


@dataclass(frozen=True)
class Asked:
    """The run that a file names, if any, and its flags as NAME=VALUE."""

    run: str | None
    settings: tuple[str, ...]


def is_one(word: str) -> bool:
    """Whether a word of the command line names such a file."""
    return word.endswith((".yaml", ".yml"))


def read(name: str) -> Asked:
    """What a file asks for. Raises Refused with all that is wrong in it."""
    try:
        values = documents.read_file(Path(name)).values
    except documents.DocumentError as error:
        raise Refused([Problem("", str(error))]) from None
    flags = {key.replace("-", "_"): value for key, value in values.items()}
    if problems := list(_problems(name, flags)):
        raise Refused(problems)
    model, modules = flags.pop("model", None), _modules(flags.pop(_LORA, None))
    flags.pop("enable_lora", None)  # it is on where there is an adapter
    mine = next((text for text, path in modules.items() if run_of(path)), None)
    named = modules.pop(mine) if mine else model
    if mine:
        flags.setdefault("served_model_name", [mine.partition("=")[0]])
    if modules:
        flags[_LORA] = list(modules)
    run = None if named is None else run_of(str(named))
    if named is not None and run is None:
        raise Refused([Problem(f"{name}: model", _no_run(str(named), name))])
    return Asked(str(run.folder) if run else None, (*_whole(run, named), *_settings(flags)))


def run_of(name: str) -> Run | None:
    """The run that a folder is, or lies in; None where it is none."""
    path = Path(name).expanduser().resolve()
    found = next((f for f in (path, *path.parents) if folders.read_record(f)), None)
    return folders.open_run(found) if found else None


def _problems(name: str, flags: Mapping[str, Any]) -> Iterator[Problem]:
    known = upstream.vllm()["flags"]
    for flag in flags:
        if flag in OWNED.keys() - _TAKEN:
            yield Problem(f"{name}: {flag}", OWNED[flag])
        elif flag not in (*known, "model"):
            hint = nearest(flag, [*known])
            did = f"; did you mean {hint}?" if hint else ""
            yield Problem(
                f"{name}: {flag}", f"vLLM {upstream.vllm()['version']} has no such flag{did}"
            )


def _modules(value: Any) -> dict[str, str]:
    """`name=path`, or objects with both -> the text of each and its path."""
    items = value if isinstance(value, list) else [value] if value else []
    pairs = (
        (str(item.get("name")), str(item.get("path")))
        if isinstance(item, Mapping)
        else (str(item).partition("=")[0], str(item).partition("=")[2])
        for item in items
    )
    return {f"{name}={path}": path for name, path in pairs}


def _whole(run: Run | None, named: object) -> Iterator[str]:
    """A whole model of the run that the file insists on, in place of what the run would serve."""
    if run is not None:
        inside = Path(str(named)).expanduser().resolve().relative_to(run.folder.resolve())
        if inside.parts and inside.parts[0].startswith(_WHOLE):
            yield f"SFT_SERVED_MODEL_RELPATH={run.folder.name}/{inside}"


def _settings(flags: Mapping[str, Any]) -> Iterator[str]:
    for flag, value in flags.items():
        if value is not None:
            text = value if isinstance(value, str) else json.dumps(value)
            yield f"{SERVE_FLAG}{flag.upper()}={text}"


def _no_run(named: str, file: str) -> str:
    return (
        f"{named} is no run and in none; envtune serves what it has trained. vLLM's own command "
        f"starts anything else: .venv-serve/bin/vllm serve --config {file}"
    )

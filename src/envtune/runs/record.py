"""What a run leaves for its readers: run.json, report.json and `.complete`.

run.json is the record of everything that decided the run; report.json the figures that
a script wants; `.complete` comes last and holds the digest of run.json.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envtune import channel, files
from envtune.errors import Problem, Refused
from envtune.resolve.config import Parallel, RunConfig, Value
from envtune.runs import folders, recordfile
from envtune.runs.contents import COMPLETE, PLAN, RECORD, REPORT
from envtune.runs.folders import Run
from envtune.settings.own import OWN, SERVE_FLAGS
from envtune.settings.own.training import RESUME_FROM
from envtune.settings.typed import Setting

LOG = logging.getLogger("envtune")
_PACKAGES = (
    "envtune", "axolotl", "torch", "transformers", "peft", "accelerate", "trl", "datasets",
    "tokenizers", "safetensors",
)  # fmt: skip
_TAIL = 8192
RESOLVED = "config/resolved.json"
# What a run cannot be made without.
_RESOLVED = {"axolotl", "settings", "device", "parallel", "output_dir", "resume_from", "offline"}


def versions() -> dict[str, str]:
    """The versions of what trains, read from metadata without an import."""
    import importlib.metadata  # with email and zipfile; a check has no use for them
    import platform

    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def resolved(config: RunConfig, contents: dict[str, str]) -> dict[str, Any]:
    """config/resolved.json: the RunConfig, each value with its source and reason."""
    return {
        "axolotl": {key: _told(value) for key, value in config.axolotl.items()},
        "settings": {key: _told(value) for key, value in config.own.items()},
        "device": config.device,
        "parallel": asdict(config.parallel),
        "output_dir": config.output_dir,
        "resume_from": config.resume_from,
        "offline": config.offline,
        "untyped": config.untyped,
        "contents": contents,
    }


def load_resolved(run: Run, own: Mapping[str, Setting] | None = None) -> RunConfig:
    """The RunConfig that `resolved` wrote, with `own` in place of what it says of the same."""
    default = {name: Value(setting.default, "envtune") for name, setting in OWN.items()}
    data = read_resolved(run.folder)
    made = {**default, **{key: Value(**value) for key, value in data["settings"].items()}}
    made[RESUME_FROM] = default[RESUME_FROM]  # what a start began anew, the next one goes on with
    today = {name: _over(made.get(name), name, given) for name, given in (own or {}).items()}
    return RunConfig(
        axolotl={key: Value(**value) for key, value in data["axolotl"].items()},
        own={**made, **today},
        device=data["device"],
        parallel=Parallel(**data["parallel"]),
        output_dir=data["output_dir"],
        resume_from=data["resume_from"],
        offline=data["offline"],
        untyped={key: tuple(several) for key, several in data.get("untyped", {}).items()},
    )


def read_resolved(folder: Path) -> dict[str, Any]:
    """What config/resolved.json holds, or run.json in its place. Raises Refused where neither
    says it."""
    if found := resolved_file(folder) or resolved_in_record(folder):
        return found
    what = f"{folder / RESOLVED} and {RECORD} do not tell what it was made with any more"
    raise Refused([Problem("", f"{what}; start it with its settings in place of its folder")])


def resolved_file(folder: Path) -> dict[str, Any]:
    """What the file alone holds; nothing where it is damaged or not there."""
    try:
        return _resolved(files.read_json(folder / RESOLVED))
    except (OSError, ValueError):
        return {}


def resolved_in_record(folder: Path) -> dict[str, Any]:
    """The same as run.json repeats it; nothing before the first configuration was written."""
    return _resolved(folders.read_record(folder).get("resolved"))


def _resolved(data: Any) -> dict[str, Any]:
    """`data` where a RunConfig can be made of it."""
    if not isinstance(data, dict) or not data.keys() >= _RESOLVED:
        return {}
    parts = [data[name] for name in ("axolotl", "settings", "parallel")]
    values = [value for part in parts[:2] if isinstance(part, dict) for value in part.values()]
    whole = all(isinstance(part, dict) for part in (*parts, *values))
    return data if whole else {}


def _over(made: Value | None, name: str, given: Setting) -> Value:
    """What is set today; of vLLM's flags those alone that are, the run's own stay."""
    if name == SERVE_FLAGS and made is not None and isinstance(given.value, Mapping):
        return Value({**(made.value or {}), **given.value}, given.name)
    return Value(given.value, given.name)


def _told(value: Value) -> dict[str, Any]:
    return {"value": value.value, "source": value.source, "reason": value.reason}


def update(run: Run, **changes: Any) -> None:
    """Changes run.json; the stages' records are merged, not replaced."""
    record = folders.read_record(run.folder)
    stages = {**record.get("stages", {}), **changes.pop("stages", {})}
    recordfile.write(run.folder, {**record, **changes, "stages": stages})


def write_page(run: Run, path: Path, text: str) -> None:
    """Writes a page that people read and edit; one that is not as it was written is kept beside."""
    name, pages = (
        str(path.relative_to(run.folder)),
        folders.read_record(run.folder).get("pages", {}),
    )
    if path.exists() and _digest(path) not in (pages.get(name), _sha256(text.encode())):
        LOG.warning("%s is not as it was written; it is kept as %s", path, files.set_aside(path))
    files.write_text(path, text)
    update(run, pages={**pages, name: _digest(path)})


def _digest(path: Path) -> str:
    return _sha256(files.read_bytes(path))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def complete(run: Run, checks: list[str]) -> None:
    """Marks the run as done. Nothing is written to it afterwards."""
    digest = _digest(run.folder / RECORD)
    files.write_json(run.folder / COMPLETE, {"run.json": digest, "checks": checks})


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl in order; half a line at the end is left out."""
    try:
        text = files.read_text(folder / channel.METRICS)
    except FileNotFoundError:
        return []
    lines = map(channel.read_line, text.splitlines())
    return [line for line in lines if "loss" in line]


def losses(folder: Path) -> list[float]:
    """The losses that have been logged, in order."""
    return [line["loss"] for line in metrics(folder)]


def last_metric(folder: Path) -> dict[str, Any]:
    """The newest whole line of metrics.jsonl, or nothing; reads only the file's end."""
    try:
        with (folder / channel.METRICS).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, 2) - _TAIL))
            lines = stream.read().splitlines()
    except OSError:
        return {}
    return next(filter(None, map(channel.read_line, reversed(lines))), {})


def is_reported(run: Run) -> bool:
    """Whether a run's figures can be read."""
    try:
        return "steps" in files.read_json(run.folder / REPORT)
    except (OSError, ValueError, TypeError):
        return False


def report(run: Run, peak_memory: int) -> dict[str, Any]:
    """report.json. `peak_memory` in bytes, of the largest process."""
    logged = losses(run.folder)
    stages = folders.read_record(run.folder)["stages"]
    trained = stages["train"]
    tokens, seconds = trained["tokens"], trained["training_seconds"]
    here = tokens - trained.get("brought_tokens", 0)  # the others took no second of this run
    return {
        "run": run.name,
        "world_size": trained["world_size"],
        "steps": trained["step"],
        "first_loss": logged[0] if logged else None,
        "last_loss": logged[-1] if logged else None,
        "total_tokens": tokens,
        "elapsed_seconds": round(seconds, 3),
        "tokens_per_second": round(here / seconds, 1) if seconds and here > 0 else None,
        "speed_counts": _learned(run.folder),
        "padding": trained.get("padding"),
        "mfu": trained.get("mfu"),
        "plan": _against_plan(run, trained),
        "stage_seconds": {name: stage["seconds"] for name, stage in stages.items()},
        "peak_process_memory_bytes": peak_memory,
    }


def planned(folder: Path) -> dict[str, Any]:
    """What was planned of a run, or nothing."""
    try:
        found: dict[str, Any] = files.read_json(folder / PLAN)
    except FileNotFoundError:
        return {}
    return found


def _learned(folder: Path) -> bool:
    """Whether the loss fell and every gradient was one: a speed at which nothing is learned is
    none."""
    lines = metrics(folder)
    fell = len(lines) > 1 and lines[-1]["loss"] < lines[0]["loss"]
    return fell and all(line.get("grad_norm", 1.0) > 0 for line in lines)


def _against_plan(run: Run, trained: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was planned beside what was measured; None where nothing was planned."""
    plan = planned(run.folder)
    if not plan:
        return None
    tokens, seconds = trained["tokens"], trained["training_seconds"]
    here = tokens - trained.get("brought_tokens", 0)
    measured = {
        "steps": trained["step"],
        "seconds": seconds,
        "tokens_per_second": round(here / seconds, 1) if seconds else None,
        "allocated": trained.get("peak_allocated_bytes"),
        "reserved": trained.get("peak_reserved_bytes"),
    }
    held = plan["memory"]
    wanted = {**plan, "allocated": held["allocated"], "reserved": held["needed"]}
    return {name: {"planned": wanted[name], "measured": got} for name, got in measured.items()}

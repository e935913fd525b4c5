"""The names of runs: `<model>-<dataset>-<size>-run<N>`. Pure.

A slug holds only a-z, 0-9 and single hyphens; a segment is at most 64 characters and a
name at most 128, cut with four characters of a hash. The rules and the variables are
those of the compose pipeline that users come from.
"""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from envtune.errors import Problem, Refused
from envtune.resolve.config import RunConfig
from envtune.resolve.facts import READERS
from envtune.settings.own import RUN_NAME

SEGMENT, NAME, LAST_INDEX = 64, 128, 9999
_RUN = re.compile(RUN_NAME)
_STAMPED = re.compile(r"[a-z0-9][a-z0-9-]*-ts[0-9]{14}\Z")
_SLICE = re.compile(r"\[:(\d+)\]$")
_SUFFIXES = re.compile(r"\.(jsonl?|csv|tsv|parquet|arrow|txt)(\.(gz|zst))?$", re.IGNORECASE)


@dataclass(frozen=True)
class RunName:
    """A name and its parts. `index` is 0 where the name is not counted."""

    name: str
    prefix: str
    index: int
    model: str
    dataset: str
    size: str


def slug(text: str, fallback: str) -> str:
    """`text` as a segment of a name."""
    cleaned = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return cut(cleaned or fallback, SEGMENT)


def cut(text: str, length: int) -> str:
    """`text` in at most `length` characters; what is cut off shows as a hash."""
    if len(text) <= length:
        return text
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:4]
    return f"{text[: length - 5].rstrip('-')}-{digest}"


def parts(config: RunConfig) -> tuple[str, str, str]:
    """The model's, the data set's and the size's slug."""
    plain = config.plain()
    datasets = plain.get("datasets") or plain.get("pretraining_dataset") or [{}]
    first = datasets[0] if isinstance(datasets, list) else {"path": datasets}
    named = first.get("data_files") if first.get("path") in READERS else first.get("path", "")
    path = _SUFFIXES.sub("", str(named).rstrip("/"))
    split = _SLICE.search(str(first.get("split") or ""))
    folder = path.rpartition("/")[0]  # whose rows are all called train
    prepared = {_last(one.rstrip("/")) for one in config.setting("SFT_DATA_DIRS") or ()}
    return (
        slug(str(plain["base_model"]).rstrip("/").rsplit("/", 1)[-1], "model"),
        slug(_last(folder if _last(folder) in prepared else path), "dataset"),
        f"n{split[1]}" if split else "full",
    )


def _last(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def next_name(config: RunConfig, existing: Collection[str], now: datetime) -> RunName:
    """The name of the next run beside the `existing` ones. Raises Refused."""
    model, dataset, size = parts(config)
    if config.setting("USE_LEGACY_NAMING"):
        name = config.setting("LEGACY_RUN_NAME") or legacy_name(config)
        return RunName(name, name, 0, model, dataset, size)
    if forced := config.setting("FORCE_RUN_NAME"):
        prefix, _, index = forced.rpartition("-run")
        return RunName(forced, prefix, int(index), model, dataset, size)
    prefix = f"{model}-{dataset}-{size}"
    scope = config.setting("SFT_RUN_COUNTER_SCOPE")
    taken = {
        int(match["index"]): name
        for name in existing
        if (match := _counted(name, scope, model, prefix))
    }
    index = config.setting("FORCE_RUN_INDEX")
    if index is not None and index in taken:
        raise Refused([_taken(index, taken[index])])
    index = index or max(taken, default=0) + 1
    if index > LAST_INDEX:
        name = _timestamped(prefix, existing, now)
        return RunName(name, prefix, 0, model, dataset, size)
    ending = f"-run{index}"
    name = cut(prefix, NAME - len(ending)) + ending
    return RunName(name, prefix, index, model, dataset, size)


def counted(name: str) -> tuple[str, int]:
    """A name's prefix and number; the whole of it and 0 where it has none."""
    match = _RUN.fullmatch(name)
    return (match["prefix"], int(match["index"])) if match else (name, 0)


def is_name(text: str) -> bool:
    """Whether it is a name that a run is given where the user gives none."""
    return bool(_RUN.match(text) or _STAMPED.match(text))


def _timestamped(prefix: str, existing: Collection[str], now: datetime) -> str:
    """A name where the counter has run out; a second later where another start was faster."""
    while True:
        ending = f"-ts{now:%Y%m%d%H%M%S}"
        name = cut(prefix, NAME - len(ending)) + ending
        if name not in existing:
            return name
        now += timedelta(seconds=1)


def legacy_name(config: RunConfig) -> str:
    """The folder name of before the counter: `<dataset>_<size>_<model>`."""
    model, dataset, size = (part.replace("-", "_") for part in parts(config))
    return cut(f"{dataset}_{size}_{model}", NAME)


def _counted(name: str, scope: str, model: str, prefix: str) -> re.Match[str] | None:
    """The match of a run's name that shares the counter, or None."""
    match = _RUN.fullmatch(name)
    if match is None or scope == "global":
        return match
    if scope == "model":
        return match if f"{match['prefix']}-".startswith(f"{model}-") else None
    return match if match["prefix"] == cut(prefix, len(match["prefix"])) else None


def _taken(index: int, name: str) -> Problem:
    return Problem(
        "FORCE_RUN_INDEX",
        f"{index} is taken by {name}, which has another configuration; choose another number or "
        "unset it",
    )

"""The stage that looks at every row before torch is imported, and makes ids and labels of them
where they are known to be Axolotl's.

What it makes is kept by content under the caches, so that another start, or another learning
rate, finds it; the plugin hands it to Axolotl. It runs at every start: a cache may be gone.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from envtune import files
from envtune.errors import Exit, Refused
from envtune.machine import hardware
from envtune.runs import fingerprint
from envtune.runs.contents import PREPARED
from envtune.settings import paths
from envtune.settings.own import OWN
from envtune.settings.own.preparation import ENGINE, FILTERS, MIXTURE, SAVE
from envtune.supervise import worker
from envtune.supervise.stage import LOG, Context, StageRecord
from envtune.transfer import datafiles, hubcache, repositories

_KEYS = {"train": "datasets", "test": "test_datasets"}
# Rows that come one by one are never read whole.
_STREAMED = ("streaming", "pretraining_dataset")


def prepare(context: Context) -> StageRecord | None:
    """Looks at the rows and prepares them, unless Axolotl is to."""
    (context.run.folder / PREPARED).unlink(missing_ok=True)
    plain = context.config.plain()
    streamed = next((key for key in _STREAMED if plain.get(key)), None)
    if context.config.setting("SFT_PREPARE") == "axolotl" or streamed or not plain.get("datasets"):
        return _not_here(context, f"{streamed} is set" if streamed else "SFT_PREPARE=axolotl")
    try:
        order = _order(context, plain)
    except Refused as refused:
        return worker.failed("prepare", refused.exit, str(refused))
    if order is None:
        return _not_here(context, "a data set is on the Hub")
    if failed := worker.carry_out(context, "prepare", "prepare", order):
        return _told(context, order, failed)
    result = files.read_json(Path(order["result"]))
    for line in result.get("idle", ()):
        LOG.warning("prepare: %s", line)
    for line in result.get("lines", ()):
        LOG.info("prepare: %s", line)
    if "folder" not in result:
        LOG.info("prepare: Axolotl makes the ids: %s", result["beyond"])
        return {"outcome": "done", "by": "axolotl", "because": result["beyond"]}
    return _done(context, result)


def _lost(name: str, lost: Mapping[str, Any]) -> Iterator[str]:
    """What is too long to be trained on, and the way out."""
    long, short = lost["too_long"], lost["too_short"]
    if long["rows"]:
        what = "are cut" if long["cut"] else "are left out"
        yield (
            f"{name}: {long['rows']:,} rows are longer than AXOLOTL_SEQUENCE_LEN and {what}, with "
            f"{long['tokens']:,} tokens; raise it, or set AXOLOTL_EXCESS_LENGTH_STRATEGY=truncate"
        )
    if short["rows"]:
        yield f"{name}: {short['rows']:,} rows are too short to learn from"


def _not_here(context: Context, why: str) -> StageRecord | None:
    """Nothing is prepared, which is a failure where something was asked of the rows."""
    if asked(context.config.setting):
        what = f"the rows are to be filtered or weighed, and {why}: envtune does not see them"
        return worker.failed("prepare", Exit.CONFIG, what)
    return None


def asked(setting: Any) -> bool:
    """Whether rows are to be filtered, weighed or kept."""
    names = {**FILTERS, **MIXTURE, SAVE: None}.keys() - {"SFT_SAMPLE_SIZE"}
    return any(setting(name) != OWN[name].default for name in names)


def _order(context: Context, plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the child is told; None where a data set is not on this machine. Raises Refused."""
    config, folder = context.config, context.run.folder
    wanted = asked(config.setting)
    made: dict[str, list[dict[str, Any]]] = {}
    for split, key in _KEYS.items():
        for number, item in enumerate(plain.get(key) or ()):
            found = _files(context, item, key, number, fetch=wanted)
            if found is None:
                return None
            untyped = number in config.untyped.get(key, ())
            made.setdefault(split, []).append({"item": item, "files": found, "untyped": untyped})
    base = hubcache.base_folder(config, context.environ)
    other = str(plain.get("tokenizer_config") or "")
    beyond = "" if base else "the tokenizer is not here yet"
    if other and not other.startswith("/"):
        beyond = "tokenizer_config is a name of the Hub"
    names = (*FILTERS, *MIXTURE)
    return {
        "config": {**_processes(context.environ), **plain},
        "tokenizer": other or str(base),
        "sets": made,
        "settings": {name: config.setting(name) for name in names},
        "ray": context.environ.get("RAY_ADDRESS", "") if config.setting(ENGINE) == "ray" else None,
        "cores": hardware.cores(),
        "asked": wanted,
        "save": config.setting(SAVE),
        "drops": config.setting("SFT_BAD_ROWS") == "drop",
        "beyond": beyond,
        "content": _content(made),
        "run": folder,
        "caches": _caches(context) / "tokenizers",
        "out": _out(context, required=wanted),
        "result": context.run.log("prepare").with_name("prepared.json"),
    }


def _processes(environ: Mapping[str, str]) -> dict[str, int]:
    """How many processes Axolotl's own variable asks for, which is no key of its configuration."""
    told = environ.get("AXOLOTL_DATASET_NUM_PROC", "")
    return {"dataset_num_proc": int(told)} if told.isdecimal() and int(told) else {}


def _files(
    context: Context, item: Mapping[str, Any], key: str, number: int, *, fetch: bool
) -> list[str] | None:
    """The files of a data set on this machine; of the Hub's only where they are to be fetched."""
    name = f"{key}[{number}]"
    found = datafiles.here(item, name)
    if found is not None or not fetch or not repositories.is_repository(item):
        return found
    return datafiles.of_hub(item, name, context.config.setting, context.environ)


def _content(sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A digest of the bytes of all files, in their order."""
    total = hashlib.sha256()
    for path in (path for several in sets.values() for one in several for path in one["files"]):
        there = os.path.exists(path)
        total.update(fingerprint.digest(Path(path), whole=True).encode() if there else b"?")
    return total.hexdigest()


def _caches(context: Context) -> Path:
    """Where envtune keeps what another run may use."""
    folder = context.config.setting("SFT_CACHE_DIR")
    return Path(paths.kept(folder, context.environ, str(context.run.folder.parent)))


def _out(context: Context, *, required: bool) -> Path:
    """Where prepared rows are kept: on the volume that all nodes see, where each needs them."""
    if required and context.config.parallel.nodes > 1:
        return context.run.folder / "data" / "rows"
    return _caches(context) / "prepared"


def _told(context: Context, order: Mapping[str, Any], failed: StageRecord) -> StageRecord:
    """The record of a refusal: its lines as they are, where there are some."""
    result = Path(order["result"])
    lines = files.read_json(result).get("refused") if result.exists() else None
    return {**failed, "message": "\n".join(map(context.clean, lines))} if lines else failed


def _done(context: Context, result: Mapping[str, Any]) -> StageRecord:
    made = {name: result[name] for name in ("folder", "hit", "because", "required")}
    splits = result["manifest"]["splits"]
    for line in _lines(result):
        LOG.info("prepare: %s", line)
    return {
        "outcome": "done",
        "by": "envtune",
        **made,
        "dropped": result["dropped"],
        "rows": {name: split["rows"] for name, split in splits.items()},
        "tokens": {name: split["tokens"] for name, split in splits.items()},
        "checks": ["every row was read"],
    }


def _lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What a person is told of prepared rows."""
    for name, split in result["manifest"]["splits"].items():
        yield f"{name}: {split['rows']:,} rows, {split['tokens']:,} tokens"
    for name, lost in result["manifest"].get("dropped", {}).items():
        yield from _lost(name, lost)
    for reason, count in result["dropped"].items():
        yield f"{count:,} rows are left out: {reason}"
    yield from result["manifest"].get("slow", ())
    found = "found" if result["hit"] else "made"
    yield f"{found} in {result['folder']}: {result['because']}"

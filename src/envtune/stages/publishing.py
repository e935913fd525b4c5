"""The stage that publishes: the model card of every run, and its result to where it is asked.

Only what passed its checks gets here. The upload is a child: a stop ends it, and the next
start sends what is not there yet. Training is never lost by it.
"""

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import adapterfiles, adapters, layouts, modelfiles
from envtune.errors import Exit
from envtune.render import launch
from envtune.runs import folders, prepared, record
from envtune.runs.contents import CARD, EVAL, OUT, SERVING
from envtune.settings import publish_targets
from envtune.settings.publish_targets import Target
from envtune.stages import model_card
from envtune.stages.model_card import Told
from envtune.supervise import worker
from envtune.supervise.stage import LOG, Context, StageRecord
from envtune.transfer import hubcache, outgoing
from envtune.transfer.outgoing import Artifact

_RESULT = "pushed.json"
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def publish(context: Context) -> StageRecord | None:
    """Writes README.md, and sends the result to each place of SFT_PUSH_TO."""
    folder, told = context.run.folder, _told(context)
    served = _artifact(context, "auto")
    where = str(next(iter(served.parts.values())).relative_to(folder))
    record.write_page(
        context.run,
        folder / CARD,
        model_card.render(told, served, "serving" if served.kind == "resized" else where),
    )
    wanted = context.config.setting(publish_targets.PUSH_TO) or ()
    places = [
        publish_targets.parse(publish_targets.PUSH_TO, text) for text in dict.fromkeys(wanted)
    ]
    if not places:
        return None
    try:
        artifact = _artifact(context, context.config.setting(publish_targets.WHAT))
    except LookupError as error:
        return worker.failed("publish", Exit.CONFIG, f"{publish_targets.WHAT}: {error.args[0]}")
    laid = {
        place.url: _lay_out(context, told, artifact, place, n) for n, place in enumerate(places)
    }
    if lines := [line for out in laid.values() for line in outgoing.leaks(out, context.environ)]:
        told_once = "; ".join(dict.fromkeys(lines))
        return worker.failed("publish", Exit.ARTIFACT, f"{told_once}; nothing was sent")
    return _send(context, artifact, places, laid)


def _artifact(context: Context, what: str) -> Artifact:
    stages = folders.read_record(context.run.folder)["stages"]
    preferred = context.config.own.get("SFT_PREFER_AWQ")
    awq = bool(preferred and preferred.value)
    return outgoing.choose(context.run.folder, what, stages.get("export", {}), awq=awq)


def _lay_out(context: Context, told: Told, artifact: Artifact, place: Target, number: int) -> Path:
    """The folder that goes to a place: each has a card of its own."""
    out = context.run.folder / OUT / str(number)
    text = model_card.render(told, artifact, place.id or context.run.name, hub=bool(place.id))
    outgoing.lay_out(artifact, text, out)
    return out


def _send(
    context: Context, artifact: Artifact, places: list[Target], laid: Mapping[str, Path]
) -> StageRecord:
    config, folder = context.run.folder / "config", context.run.folder
    private = context.config.setting("SFT_PUSH_PRIVATE")
    before = folders.read_record(folder)["stages"].get("publish", {}).get("targets", ())
    urls = {
        place.url: place.url if place.id else f"{place.url}/{context.run.name}" for place in places
    }
    order = {
        "result": str(config / _RESULT),
        "places": str(config / "places.json"),
        "targets": [
            {
                "url": urls[place.url],
                "known": urls[place.url] in [sent["url"] for sent in before],
                "id": place.id,
                "revision": place.revision,
                "private": private,
                "folder": str(laid[place.url]),
            }
            for place in places
        ],
    }
    files.write_json(config / "push.json", order)
    (config / _RESULT).unlink(missing_ok=True)
    plan = launch.push(config / "push.json", sys.executable, folder, context.environ)
    code, tail = worker.attend(context, "publish", "publish", plan)
    if not (config / _RESULT).exists():
        said = tail[-1] if tail else f"ended with code {code}"
        where = f"(log: {context.run.log('publish')})"
        return worker.failed("publish", Exit.BUG, f"{said} {where}")
    result = modelfiles.read_json(config / _RESULT)
    if result["exit"]:
        line, exit_ = context.clean(result["message"]), Exit(result["exit"])
        then = "the next start sends it" if exit_ == Exit.NETWORK else "change that and start again"
        return worker.failed("publish", exit_, f"{line}; {then}")
    shutil.rmtree(folder / OUT)
    for sent in result["targets"]:
        LOG.info("publish: %s: %d files, %d bytes", sent["url"], sent["files"], sent["bytes"])
    check = "every published file is there as it was sent"
    told = {"kind": artifact.kind, "targets": result["targets"]}
    return {"outcome": "done", **told, "checks": [check]}


def _told(context: Context) -> Told:
    folder = context.run.folder
    base = hubcache.base_folder(context.config, context.environ)
    return Told(
        record=folders.read_record(folder),
        config=context.config,
        report=record.report(context.run, 0),
        evaluation=_json(folder / EVAL / "results.json"),
        serving=_json(folder / SERVING / "serving.json"),
        layout=layouts.read(folder),
        license=_license(base),
        rows=_rows(folder),
        resized=grown(folder / "adapter", base),
    )


def _json(path: Path) -> Mapping[str, Any]:
    return modelfiles.read_json(path) if path.exists() else {}


def _license(base: Path | None) -> str:
    """The licence that the base's own card names, or nothing."""
    import yaml

    path = base / "README.md" if base else None
    if path is None or not path.is_file():
        return ""
    front = _FRONT.match(files.read_bytes(path).decode(errors="replace"))
    try:
        named = (yaml.safe_load(front[1]) or {}).get("license") if front else ""
    except (yaml.YAMLError, AttributeError):
        return ""
    return named if isinstance(named, str) else ""


def _rows(run_dir: Path) -> int | None:
    """How many rows trained, where they are still there."""
    if (folder := prepared.trained(run_dir)) is None:
        return None
    import pyarrow

    count = 0
    for path in folder.glob("data-*.arrow"):
        with pyarrow.memory_map(str(path)) as source:
            count += sum(batch.num_rows for batch in pyarrow.ipc.open_stream(source))
    return count


def grown(adapter: Path, base: Path | None) -> int | None:
    """How many rows the base has to grow to before it takes the adapter; None: as it is."""
    if base is None or not adapter.is_dir() or not (base / "config.json").exists():
        return None
    tensors = adapterfiles.adapter(adapter).tensors
    rows = [t["shape"][0] for name, t in tensors.items() if _holds_rows(name)]
    size = modelfiles.read_json(base / "config.json").get("vocab_size")
    return max(rows) if rows and max(rows) != size else None


def _holds_rows(name: str) -> bool:
    module, part = adapters.split(name)
    return part in adapters.ROWS and module.endswith((adapters.INPUT, adapters.OUTPUT))

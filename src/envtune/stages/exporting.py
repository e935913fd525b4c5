"""The stage that makes a trained adapter servable: `serving/`, and `merged/` where it has to be.

Children of the train environment do the work; what they write beside the training's output
is whole or not there, so that a killed export is repeated and nothing of the run is lost.
"""

from envtune import files
from envtune.artifacts import layouts, modelfiles
from envtune.errors import Exit
from envtune.runs.contents import ADAPTER, MERGED, MODEL, SERVING
from envtune.supervise import worker
from envtune.supervise.stage import LOG, Context, StageRecord
from envtune.transfer import hubcache


def export(context: Context) -> StageRecord | None:
    """Makes of the run's adapter what vLLM serves. A model that was trained whole is served as
    it is, and stops where its layout does."""
    adapter = context.run.folder / "adapter"
    if not context.config.setting("SFT_EXPORT"):
        return None
    if not adapter.is_dir():
        _stop(context, MODEL)
        return None
    if (base := hubcache.base_folder(context.config, context.environ)) is None:
        return _lost(context, "export")
    _stop(context, ADAPTER)
    folder = context.run.folder
    named = base if (given := str(context.config.plain()["base_model"])).startswith("/") else given
    order = {
        "adapter": adapter, "base": str(named), "base_folder": base, "serving": folder / SERVING,
        "new_embeddings": context.config.setting("SFT_LORA_POST_PROCESS_FOR_VLLM"),
        "stops": _stops(context),
    }  # fmt: skip
    if failed := worker.carry_out(context, "export", "export", order):
        return failed
    made = modelfiles.read_json(folder / SERVING / "serving.json")
    LOG.info("export: %s: %s", made["kind"], made["reason"])
    if made["warning"]:
        LOG.warning("export: %s", made["warning"])
    whole = made["kind"] == "merged" or context.config.setting("SFT_MERGE")
    if whole and (failed := merge(context, "export")):
        return failed
    told = {name: made[name] for name in ("kind", "reason", "max_lora_rank")}
    return {"outcome": "done", **told, "checks": ["the adapter fits its base"]}


def merge(context: Context, stage: str) -> StageRecord | None:
    """Makes `merged/` for a stage. None, or the record of its failure."""
    if (base := hubcache.base_folder(context.config, context.environ)) is None:
        return _lost(context, stage)
    folder = context.run.folder
    order = {"base": base, "adapter": folder / "adapter", "target": folder / MERGED}
    failed = worker.carry_out(context, stage, "merge", order)
    if not failed:
        _stop(context, MERGED)
    return failed


def _stops(context: Context) -> list[int]:
    told, wanted = layouts.read(context.run.folder), context.config.setting("SFT_CHAT_LAYOUT")
    items = context.config.plain().get("datasets") or ()
    named = (
        str(item["path"]) for n, item in enumerate(items)
        if wanted and layouts.is_named(wanted, n, str(item["path"]), item.get("type"))
    )  # fmt: skip
    if told and next(named, told.data) != told.data:
        LOG.warning("export: SFT_CHAT_LAYOUT: chats have the layout of %s, as it was trained; "
                    "SFT_RERUN=true trains with another", told.data)  # fmt: skip
    return told.stops if told else []


def _stop(context: Context, name: str) -> None:
    """Has what was trained stop where its layout ends an answer."""
    folder, stops = context.run.folder / name, _stops(context)
    if stops and folder.is_dir():
        told = layouts.generation_config(stops, folder)
        files.write_json(folder / layouts.GENERATION, told)


def _lost(context: Context, stage: str) -> StageRecord:
    name = context.config.plain()["base_model"]
    what = f"{name} is not in the cache any more; the adapter is whole"
    return worker.failed(stage, Exit.ACCESS, what)

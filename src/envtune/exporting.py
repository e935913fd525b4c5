"""The stage that makes a trained adapter servable: `serving/`, and `merged/` where it has to be.

Children of the train environment do the work; what they write beside the training's output
is whole or not there, so that a killed export is repeated and nothing of the run is lost.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from envtune import files, hubcache, launch, modelfiles, process, runtime
from envtune.errors import Exit, recognise
from envtune.repositories import Repository
from envtune.stage import LOG, Context, StageRecord, stopped

SERVING, MERGED = "serving", "merged"


def export(context: Context) -> StageRecord | None:
    """Makes of the run's adapter what vLLM serves. A model that was trained whole is served as
    it is."""
    adapter = context.run.folder / "adapter"
    if not context.config.setting("SFT_EXPORT") or not adapter.is_dir():
        return None
    base = _base(context)
    if base is None:
        name = context.config.plain()["base_model"]
        return _failed(Exit.ACCESS, f"{name} is not in the cache any more; the adapter is whole")
    folder = context.run.folder
    named = base if (given := str(context.config.plain()["base_model"])).startswith("/") else given
    order = {
        "adapter": adapter, "base": str(named), "base_folder": base, "serving": folder / SERVING,
        "new_embeddings": context.config.setting("SFT_LORA_POST_PROCESS_FOR_VLLM"),
    }  # fmt: skip
    if failed := _ordered(context, "export", order):
        return failed
    made = modelfiles.read_json(folder / SERVING / "serving.json")
    LOG.info("export: %s: %s", made["kind"], made["reason"])
    if made["kind"] == "merged":
        order = {"base": base, "adapter": adapter, "target": folder / MERGED}
        if failed := _ordered(context, "merge", order):
            return failed
    told = {name: made[name] for name in ("kind", "reason", "max_lora_rank")}
    return {"outcome": "done", **told, "checks": ["the adapter fits its base"]}


def _base(context: Context) -> Path | None:
    """The folder of the base model: the user's, or the Hub's in its cache."""
    plain = context.config.plain()
    if (name := str(plain["base_model"])).startswith("/"):
        return Path(name)
    repository = Repository("", "model", name, plain.get("model_revision"))
    caches = runtime.caches(context.config.setting("SFT_CACHE_DIR"), context.environ)
    return hubcache.snapshot(repository, {**context.environ, **caches})


def _ordered(context: Context, module: str, order: dict[str, Any]) -> StageRecord | None:
    """Runs a module of the engine with its order; None, or the record of its failure."""
    path = context.run.folder / "config" / f"{module}.json"
    files.write_json(path, {k: str(v) if isinstance(v, Path) else v for k, v in order.items()})
    plan = launch.engine(module, path, sys.executable, context.run.folder, context.environ)
    watcher = _Watcher(context)
    code = process.run(plan, context.run.log("export"), watcher, context.stops)
    if context.stops.asked:
        raise stopped(context, module)
    if code == 0:
        return None
    said = watcher.tail[-1] if watcher.tail else f"{module} ended with code {code}"
    if failure := recognise("\n".join(watcher.tail)):
        return _failed(failure.exit, f"{failure.cause}: {said}; {failure.fix}")
    known = Exit(code) if code in (Exit.ACCESS, Exit.ARTIFACT) else Exit.BUG
    return _failed(known, f"{module}: {said} (log: {context.run.log('export')})")


def _failed(exit_: Exit, message: str) -> StageRecord:
    return {"outcome": "failed", "exit": exit_, "message": f"export failed: {message}"}


@dataclass
class _Watcher:
    """Shows a child's lines and keeps the last. A stop ends it: it is repeated."""

    context: Context
    tail: list[str] = field(default_factory=list)

    def line(self, text: str) -> None:
        self.tail = [*self.tail[-19:], self.clean(text)]
        LOG.debug("%s", self.clean(text))

    def clean(self, text: str) -> str:
        return self.context.clean(text)

    def tick(self) -> None:
        """Nothing is shown."""

    def stop(self) -> bool:
        return False

    def done(self) -> bool:
        return False

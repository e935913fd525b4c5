"""The stage that measures what was trained beside its base: `eval/`.

A child of the train environment measures and writes results.json; the pages are made of it
here. Nothing of the training depends on it: one that fails is repeated by the next start.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from envtune.artifacts import modelfiles
from envtune.errors import Exit
from envtune.render import launch
from envtune.resolve.config import RunConfig
from envtune.runs import record
from envtune.runs.contents import EVAL
from envtune.settings import documents, prompts
from envtune.settings.own.stages import EVALUATED
from envtune.stages import samples
from envtune.supervise import worker
from envtune.supervise.stage import LOG, Context, StageRecord

RESULTS = "results.json"


def evaluate(context: Context) -> StageRecord | None:
    """Measures losses, answers and tasks of the tuned model and of its base."""
    if not wanted(context.config):
        return None
    folder = context.run.folder / EVAL
    folder.mkdir(exist_ok=True)
    try:
        order = _order(context, folder)
    except documents.DocumentError as error:
        return worker.failed("evaluate", Exit.DATA, str(error))
    online = bool(order["tasks"]) and not context.config.setting("SFT_LOCAL_FILES_ONLY")
    environ = launch.measuring(context.config, context.environ, online=online)
    child = replace(context, environ=environ)
    if failed := worker.carry_out(child, "evaluate", "evaluate", order):
        return failed
    results = modelfiles.read_json(folder / RESULTS)
    for name, page in samples.pages(results, context.run.name).items():
        record.write_page(context.run, folder / name, page)
    for line in samples.table(results).splitlines():
        LOG.info("%s", line)
    told = {name: block for name, block in results.items() if name not in ("schema", "samples")}
    return {"outcome": "done", **told, "checks": list(_checks(results))}


def wanted(config: RunConfig) -> bool:
    """Whether an evaluation is asked for: in so many words, or by what it needs."""
    said: bool | None = config.setting("SFT_EVALUATE")
    return any(map(config.setting, EVALUATED)) if said is None else said


def _order(context: Context, folder: Path) -> dict[str, Any]:
    """What the child is to do. Raises DocumentError where a file of prompts is gone or broken."""
    setting, run = context.config.setting, context.run.folder
    asked, pairs = setting("SFT_EVAL_PROMPTS"), setting("SFT_EVAL_PAIRS")
    adapter = run / "adapter"
    return {
        "config": "config/axolotl.yaml",
        "artifact": adapter if adapter.is_dir() else run / "model",
        "results": folder / RESULTS,
        "prompts": [asdict(prompt) for prompt in prompts.read(asked)] if asked else [],
        "pairs": [asdict(pair) for pair in prompts.read(pairs, scored=True)] if pairs else [],
        "generation": setting("SFT_EVAL_GENERATION") or {},
        "dataset": setting("SFT_EVAL_DATASET"),
        "tasks": setting("SFT_EVAL_TASKS") or [],
        "tasks_path": setting("SFT_EVAL_TASKS_PATH"),
        "tasks_limit": setting("SFT_EVAL_TASKS_LIMIT"),
    }


def _checks(results: Mapping[str, Any]) -> list[str]:
    """What can be said of a model that got better."""
    measured = results["validation"]
    if "skipped" in measured:
        LOG.info("evaluate: no validation loss: %s", measured["skipped"])
        return []
    if measured["tuned"]["loss"] < measured["base"]["loss"]:
        return ["the validation loss is below that of the base"]
    LOG.warning("evaluate: the validation loss is not below that of the base")
    return []

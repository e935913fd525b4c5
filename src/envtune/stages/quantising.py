"""The stage that makes a smaller copy of the trained model: `merged_awq/` and its like.

A child of the quantise environment does the work. Only a whole model can be quantised, so
that an adapter is merged first, unless the export has done it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from envtune import venvs
from envtune.artifacts import modelfiles
from envtune.checks.quantisable import ENVIRONMENT, SCHEME, VENV, no_environment
from envtune.errors import Exit
from envtune.runs.contents import MERGED
from envtune.settings.own.stages import QUANTISED
from envtune.stages import exporting
from envtune.supervise import worker
from envtune.supervise.stage import LOG, Context, StageRecord

RECORD = "quantise.json"
# Longer rows tell the scales nothing more, and the activations of all are held at once.
_LONGEST = 2048


def quantise(context: Context) -> StageRecord | None:
    """Quantises the model that was trained, or the adapter's with its base."""
    named = context.config.setting(VENV)
    if context.config.setting(SCHEME) is None:
        return None
    if (python := venvs.find(named, ENVIRONMENT)) is None:
        return worker.failed("quantise", Exit.CONFIG, no_environment(named))
    model = context.run.folder / "model"
    if not model.is_dir():
        model = context.run.folder / MERGED
        if not model.is_dir() and (failed := exporting.merge(context, "quantise")):
            return failed
    order = _order(context, model)
    if failed := worker.carry_out(context, "quantise", "quantise", order, str(python)):
        return failed
    made = modelfiles.read_json(order["target"] / RECORD)["made"]
    LOG.info("quantise: %s", _told(made, order["samples"]))
    checks = ["the quantised model opens, and is as sure of the rows as before"]
    return {"outcome": "done", "artifact": order["target"].name, "child_exit": 0, **made,
            "checks": checks}  # fmt: skip


def _told(made: Mapping[str, Any], wanted: int) -> str:
    groups = f" in groups of {made['group_size']}" if made["group_size"] else ""
    rows = f"{made['samples']} rows" + (", all there are" if made["samples"] < wanted else "")
    return (
        f"{made['scheme']} by {made['method']}{groups}, {rows}; "
        f"{made['bytes_before'] / 1e6:.1f} MB -> {made['bytes_after'] / 1e6:.1f} MB, "
        f"perplexity {made['perplexity_before']:.4g} -> {made['perplexity_after']:.4g}"
    )


def _order(context: Context, model: Path) -> dict[str, Any]:
    config, plain = context.config, context.config.plain()
    scheme = config.setting(SCHEME)
    longest = min(_LONGEST, plain.get("sequence_len") or _LONGEST)
    return {
        "model": model,
        "target": context.run.folder / QUANTISED[scheme],
        "scheme": scheme,
        "run": context.run.folder,
        "samples": config.setting("SFT_CALIBRATION_SAMPLES"),
        "length": config.setting("SFT_CALIBRATION_SEQUENCE_LEN") or longest,
        "seed": plain.get("seed") or 0,
        "device": config.device,
        "trusted": bool(plain.get("trust_remote_code")),
    }

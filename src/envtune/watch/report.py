"""report.html: a run on one page, without network and without scripts. Written after every end.

What is drawn comes from the stream of events; what decided the run from its records.
"""

import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2

from envtune import files
from envtune.errors import Exit
from envtune.events import EVENTS
from envtune.redaction import redact
from envtune.render.yaml_files import TEMPLATES
from envtune.runs import folders
from envtune.runs.contents import EVAL, PAGE, REPORT, SAMPLE
from envtune.stages import learned, samples
from envtune.supervise.progress import span
from envtune.watch import curves, ending, story
from envtune.watch.curves import Chart, number
from envtune.watch.story import Story

LOG = logging.getLogger("envtune")

# Rows of a table that grows with the run, answers that are shown, characters of a text.
_ROWS, _ANSWERS, _LONGEST = 12, 5, 4000
_GIB = 1 << 30
# What the template has to know of the drawing.
_DRAWN = ("WIDTH", "HEIGHT", "LEFT", "RIGHT")


def write(folder: Path, secrets: Sequence[str]) -> Path:
    """Writes the page of a run and returns its path."""
    path = folder / PAGE
    files.write_text(path, redact(page(folder), secrets))
    return path


def renew(folder: Path, secrets: Sequence[str]) -> None:
    """Writes the page where something has happened since. How a run ends is not changed by it."""
    try:
        told, made = (os.stat(folder / name).st_mtime_ns for name in (EVENTS, PAGE))
    except FileNotFoundError:
        told, made = 1, 0
    if told <= made:
        return
    try:
        write(folder, secrets)
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        LOG.warning("%s cannot be made: %s", folder / PAGE, redact(what, secrets))


def page(folder: Path, *, live: bool = False) -> str:
    """The page of the run in a folder; a live one loads itself anew."""
    record, told = folders.read_record(folder), story.of(folder)
    resolved = record.get("resolved", {})
    evaluation = _json(folder / EVAL / "results.json")
    return _template().render(
        live=live,
        run=record.get("name", folder.name),
        state=state(told),
        cause=_cause(told),
        figures=list(figures(told, _json(folder / REPORT))),
        charts=list(charts(told)),
        plan=_json(folder / REPORT).get("plan", {}),
        stages=list(_stages(told)),
        sample=_sample(folder),
        dropped=record.get("stages", {}).get("prepare", {}).get("dropped", {}),
        saves=list(told.saves.values())[-_ROWS:],
        best=told.best,
        checks=[c for stage in record.get("stages", {}).values() for c in stage.get("checks", ())],
        parity=_scalars(record.get("stages", {}).get("parity", {})),
        measures=list(samples.rows(evaluation)) if evaluation else [],
        answers=evaluation.get("samples", [])[:_ANSWERS],
        settings=list(settings(resolved)),
        problems=told.problems[-_ROWS:],
        warnings=told.warnings[-_ROWS:],
        versions=record.get("versions", {}),
        machine=told.machine or record.get("machine", ""),
        results=list(ending.results(folder, record)),
        next=list(ending.next_steps(folder, record)),
    )


def state(told: Story) -> str:
    """How a run stands, in a word."""
    if told.outcome is None:
        return told.phase or told.stage or "not begun"
    exit_ = told.outcome["exit"]
    if exit_ in (Exit.STOPPED, Exit.INTERRUPTED, Exit.BUDGET):
        return "stopped"
    return "failed" if exit_ else "done"


def _cause(told: Story) -> str:
    """Why a run has ended before its end."""
    if told.outcome is None or not told.outcome["exit"]:
        return ""
    return f"exit {told.outcome['exit']}: {told.outcome['text']}"


def figures(told: Story, report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is read first."""
    yield "step", f"{told.step:,} of {told.max_steps:,}"
    losses = [e["loss"] for e in told.steps.values() if "loss" in e]
    if losses:
        yield "loss", f"{losses[0]:.4f} -> {losses[-1]:.4f}"
    if (best := told.best) is not None:
        yield (
            "evaluation",
            f"{told.evaluated['eval_loss']:.4f}, best {best['eval_loss']:.4f} at {best['step']}",
        )
    tokens, seconds = told.last.get("tokens"), told.last.get("seconds")
    if tokens and seconds:
        rate = report.get("tokens_per_second") or tokens / seconds
        yield "speed", f"{rate:,.0f} tokens/s"
        yield "tokens", f"{tokens:,}"
    if memory := max((e.get("memory", 0) for e in told.steps.values()), default=0):
        yield "GPU memory", f"{memory / _GIB:.1f} GiB at most"
    yield "time", span(told.spent)
    if told.price:
        yield "money", f"{told.price * told.spent / 3600:.2f} $ at {told.price:g} $/h"


def charts(told: Story) -> Iterator[Chart]:
    """The curves that there is something to see of."""
    steps = told.steps
    wanted = (
        ("loss", "", {"training": curves.of(steps, "loss"),
                      "evaluation": curves.of(told.evaluations, "eval_loss")}),
        ("learning rate", "", {"learning rate": curves.of(steps, "learning_rate")}),
        ("gradient norm", "", {"gradient norm": curves.of(steps, "grad_norm")}),
        ("tokens a second, without padding", "", {"tokens/s": list(rates(told))}),
        ("GPU memory", "GiB", {"allocated": curves.of(steps, "memory", 1 / _GIB),
                               "reserved": curves.of(steps, "memory_reserved", 1 / _GIB)}),
        ("padding", "%", {"padding": curves.of(steps, "padding", 100)}),
    )  # fmt: skip
    yield from filter(None, (curves.chart(*one) for one in wanted))


def rates(told: Story) -> Iterator[curves.Point]:
    """Tokens a second between one step that is told and the next."""
    known = [e for _, e in sorted(told.steps.items()) if "tokens" in e and "seconds" in e]
    for before, event in itertools.pairwise(known):
        seconds = event["seconds"] - before["seconds"]
        if seconds > 0 and event["tokens"] > before["tokens"]:
            yield event["step"], (event["tokens"] - before["tokens"]) / seconds


def _stages(told: Story) -> Iterator[tuple[str, str, str]]:
    for name, event in told.stages.items():
        seconds = f"{event['seconds']:,.1f} s" if "seconds" in event else ""
        if event.get("state") != "not asked for":
            yield name, event.get("state", ""), seconds


def _sample(folder: Path) -> dict[str, Any]:
    """One row as it is trained, and the counts of all."""
    if not (found := _json(folder / SAMPLE)):
        return {}
    return {
        "counted": learned.counted(found["counts"]),
        "warnings": list(learned.warnings(found["counts"])),
        "pieces": found["samples"][0] if found["samples"] else [],
    }


def settings(resolved: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Every value that was resolved, and where it is from."""
    values = {**resolved.get("axolotl", {}), **resolved.get("settings", {})}
    for name, value in values.items():
        if value["source"] == "envtune" and value["value"] is None:
            continue
        text = value["value"] if isinstance(value["value"], str) else json.dumps(value["value"])
        why = f"{value['source']}: {value['reason']}" if value["reason"] else value["source"]
        yield name, text[:_LONGEST], why


def _scalars(stage: Mapping[str, Any]) -> list[tuple[str, str]]:
    passed = ("outcome", "exit", "message")
    plain = {k: v for k, v in stage.items() if k not in passed and isinstance(v, int | float | str)}
    return [(k.replace("_", " "), v if isinstance(v, str) else number(v)) for k, v in plain.items()]


def _json(path: Path) -> dict[str, Any]:
    """What lies there, or nothing: a page has to come after a failure too."""
    try:
        found = files.read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined,
        autoescape=True, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["when"] = lambda t: f"{datetime.fromtimestamp(t, UTC):%Y-%m-%d %H:%M:%S}"
    environment.globals.update({name: getattr(curves, name) for name in _DRAWN})
    return environment.get_template("report.html.j2")

"""A run's record -> its model card: README.md with the Hub's front matter. Pure.

A card is read by strangers: it holds no path of this machine and no key of a tracker. What
is local is named by its last part, and only what has a name on the Hub is linked.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import jinja2
import yaml

from envtune.artifacts import layouts
from envtune.render.yaml_files import TEMPLATES
from envtune.resolve.config import RunConfig, is_indifferent
from envtune.settings.own.stages import QUANTISED
from envtune.transfer.outgoing import Artifact
from envtune.transfer.repositories import is_repository

_OWNED = ("base_model", "output_dir", "dataset_prepared_path", "plugins", "datasets",
          "test_datasets", "pretraining_dataset", "resume_from_checkpoint")  # fmt: skip
_WHAT = {
    "adapter": "A LoRA adapter",
    "embedding-lora": "A LoRA adapter, its new tokens among the matrices,",
    "resized": "A LoRA adapter and a copy with more tokens",
    "merged": "A fine-tune, its adapter merged,",
    **dict.fromkeys(QUANTISED.values(), "A quantised fine-tune"),
    "model": "A fine-tune",
}
# What people want to read first of an evaluation, where it is there.
_MEASURES = ("loss", "perplexity", "success_rate")


@dataclass(frozen=True)
class Told:
    """What a card is made from: run.json, the figures of report.json, and what lies beside.

    `license` is the base's, empty where it is not known. `layout` is the run's; `rows` is how
    many rows the prepared data has, `resized` to how many the base has to grow for the adapter.
    """

    record: Mapping[str, Any]
    config: RunConfig
    report: Mapping[str, Any]
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    serving: Mapping[str, Any] = field(default_factory=dict)
    layout: layouts.Told | None = None
    license: str = ""
    rows: int | None = None
    resized: int | None = None


def render(told: Told, artifact: Artifact, where: str, *, hub: bool = False) -> str:
    """The card of an artifact that people find at `where`: a repository or a folder."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    record, base = told.record, _base(told.config)
    stages = record.get("stages", {})
    return environment.get_template("card.md.j2").render(
        metadata=yaml.safe_dump(metadata(told, artifact), sort_keys=False, allow_unicode=True),
        title=where.rpartition("/")[2] if hub else record["name"],
        what=_WHAT[artifact.kind],
        kind=artifact.kind,
        adapts=artifact.adapts,
        base=base,
        where=where.rpartition("/")[2] if hub and artifact.kind == "resized" else where,
        download=where if hub else "",
        unserved=_unserved(told, artifact),
        rank=told.serving.get("max_lora_rank"),
        tokenizer=bool(told.serving.get("tokenizer_changes")),
        layout=told.layout,
        call=_call(told, where, hub=hub),
        rows=told.resized if artifact.kind == "adapter" else None,
        data=list(_data(told.config)),
        rows_trained=told.rows,
        figures=list(_figures(told)),
        settings=list(_settings(told.config)),
        versions=record["versions"],
        evaluation=_evaluation(told.evaluation),
        parity=_scalars(stages.get("parity", {})),
        checks=[check for stage in stages.values() for check in stage.get("checks", ())],
        license=told.license,
        run=record["name"],
        key=record["key"],
        yaml=record["hashes"]["axolotl.yaml"],
        inputs=[(_bare(k), digest) for k, digest in record["hashes"]["inputs"].items()],
    )


def metadata(told: Told, artifact: Artifact) -> dict[str, Any]:
    """The front matter: the Hub's names alone."""
    base, plain = _base(told.config), told.config.plain()
    adapts = artifact.adapts or artifact.kind == "resized"
    made = "quantized" if artifact.kind in QUANTISED.values() else "finetune"
    relation = "adapter" if adapts else made
    known = {} if base["local"] else {"base_model": base["name"], "base_model_relation": relation}
    datasets = [item["path"] for item in _items(plain) if is_repository(item)]
    return {
        **known,
        "library_name": "peft" if adapts else "transformers",
        "license": told.license or "other",
        **({"datasets": list(dict.fromkeys(datasets))} if datasets else {}),
        "pipeline_tag": "text-generation",
        "tags": ["axolotl", "envtune", str(plain.get("adapter") or "full-fine-tune")],
    }


def _base(config: RunConfig) -> dict[str, Any]:
    plain = config.plain()
    name, revision = str(plain["base_model"]), plain.get("model_revision")
    if name.startswith("/"):
        return {"name": _bare(name), "local": True, "link": f"`{_bare(name)}`", "revision": None}
    link = f"[{name}](https://huggingface.co/{name})"
    return {"name": name, "local": False, "link": link, "revision": revision}


def _unserved(told: Told, artifact: Artifact) -> str:
    """Why vLLM does not take the adapter as it was trained, or nothing."""
    plain = told.serving.get("kind") in ("plain", None)
    return "" if artifact.kind != "adapter" or plain else str(told.serving["reason"])


def _call(told: Told, where: str, *, hub: bool) -> str:
    """The body of the call that is right, for the name that vLLM serves it by."""
    if told.layout is None:
        return ""
    name = where.rpartition("/")[2] if hub else str(told.record["name"])
    return json.dumps({"model": name, **told.layout.example["body"]}, ensure_ascii=False)


def _items(plain: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in ("datasets", "pretraining_dataset"):
        given = plain.get(key)
        for item in given if isinstance(given, list) else [given]:
            if item:
                yield item if isinstance(item, Mapping) else {"path": item}


def _data(config: RunConfig) -> Iterator[str]:
    for item in _items(config.plain()):
        path = str(item.get("path") or "")
        shown = f"[{path}](https://huggingface.co/datasets/{path})" if is_repository(item) else ""
        kind = item.get("type")
        how = f", as {kind if isinstance(kind, str) else 'its own columns say'}" if kind else ""
        yield f"{shown or f'`{_bare(path)}`, a local file'}{how}"


def _figures(told: Told) -> Iterator[tuple[str, Any]]:
    report = told.report
    first, last = report.get("first_loss"), report.get("last_loss")
    if first is not None and last is not None:
        yield "loss", f"{first:.4f} at the first step, {last:.4f} at the last"
    yield "steps", report["steps"]
    yield "tokens without padding", report["total_tokens"]
    yield "seconds in steps", report["elapsed_seconds"]
    ranks = report["world_size"]
    yield "hardware", f"{told.record['machine']}; {ranks} process{'es' if ranks > 1 else ''}"


def _settings(config: RunConfig) -> Iterator[tuple[str, str]]:
    """What decides the result and is on, each value on one line."""
    for key, value in config.plain().items():
        if key in _OWNED or is_indifferent(key) or value in (None, False, "", [], {}):
            continue
        text = json.dumps(_without_paths(value), ensure_ascii=False)
        yield key, text.replace("|", "\\|").replace("`", "'")


def _without_paths(value: Any) -> Any:
    if isinstance(value, str):
        return _bare(value) if value.startswith("/") else value
    if isinstance(value, Mapping):
        return {name: _without_paths(item) for name, item in value.items()}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def _bare(path: str) -> str:
    return PurePath(path).name or path


def _evaluation(results: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = {name: results.get(name) for name in _MEASURES}
    return [(n, f"{v:.4g}") for n, v in found.items() if isinstance(v, int | float)]


def _scalars(stage: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """A stage's own figures; its outcome and its time say nothing to a stranger."""
    passed = ("outcome", "seconds", "exit", "message")
    plain = {k: v for k, v in stage.items() if k not in passed and isinstance(v, int | float | str)}
    return [(name, value) for name, value in plain.items() if "/" not in str(value)]

"""A run's layout in its config folder: layout.json and the rows that prove it, proof.json.

Written by the training, which has Axolotl's code, the data and the tokenizer at hand; read by
whatever asks or serves the model afterwards.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts.layouts import FILE, PROOF, Told, is_named
from envtune.engine.layouts import found, samples
from envtune.engine.layouts.found import Found
from envtune.engine.layouts.layout import Layout, refusing

# Runs whose answers follow other rules than a row's layout.
_SAID = ("train_on_eos", "train_on_eot", "roles_to_train")
ENDLESS = (
    "no label holds the end of a turn, so that no answer would learn to stop: the chat template "
    "ends a turn with another text than the tokenizer's end of a text; name it in eot_tokens"
)
_PARTS = "no row was one prompt with one answer"
_OTHER = ("rl", "reward_model", "process_reward_model", "processor_type")


@dataclass(frozen=True)
class _Candidate:
    found: Found
    dataset: Any
    rows: Any
    size: int


def write(cfg: Any, tokenizer: Any, folder: Path, wanted: str = "") -> Layout | None:
    """Writes the layout of a configuration, and gives it; None where none is to be had. `wanted`
    names a data set; without it the largest counts."""
    if any(cfg[key] for key in _OTHER):
        return None
    candidates = list(_candidates(cfg, tokenizer))
    if not candidates:
        return None
    chosen = _chosen(candidates, wanted)
    layout = chosen.found.layout
    others = {c.found.layout.template: c for c in candidates} | {layout.template: chosen}
    rows: list[dict[str, Any]] = []
    if layout.chat and chosen.rows is not None and chosen.found.strategy is not None:
        rows = samples.requests(chosen.found, chosen.rows, tokenizer, cfg)
    told = Told(
        name=layout.name, template=layout.template, reason=layout.reason, begins=layout.begins,
        stops=list(layout.stops), example=layout.example, columns=list(layout.columns),
        system=layout.system, data=str(chosen.dataset.path),
        others=[f"{c.found.layout.name} ({c.dataset.path})" for c in others.values()
                if c is not chosen],
    )  # fmt: skip
    _refuse_endless(rows, chosen, cfg)
    files.write_json(folder / PROOF, rows)
    told.write(folder / FILE)
    return layout


def _refuse_endless(rows: list[dict[str, Any]], chosen: _Candidate, cfg: Any) -> None:
    """Ends a training whose answers would never learn to stop, before its first step; what the
    user has said about the ends of turns holds."""
    told = cfg.eot_tokens or cfg.train_on_inputs or any(chosen.dataset[key] for key in _SAID)
    chat = str(chosen.dataset.type).startswith("chat_template")
    if rows and chat and not told and not any(row["ends"] for row in rows):
        raise ValueError(ENDLESS)


def _chosen(candidates: list[_Candidate], wanted: str) -> _Candidate:
    named = (
        c for n, c in enumerate(candidates)
        if wanted and is_named(wanted, n, str(c.dataset.path), c.dataset.type)
    )  # fmt: skip
    return next(named, max(candidates, key=lambda c: c.size))


def _candidates(cfg: Any, tokenizer: Any) -> Iterator[_Candidate]:
    told = cfg.datasets or cfg.pretraining_dataset or []
    given: list[Any] = told if isinstance(told, list) else [told]
    for dataset in given:
        alone = len(given) == 1 and found.named(dataset).startswith(found.TEXTS)
        rows: Any = None if alone else samples.load(dataset, cfg)  # nothing of text is to be proved
        columns = list(rows.features) if rows is not None and rows.features else None
        if columns and "input_ids" in columns:
            continue  # tokens without words
        made = found.of(cfg, dataset, tokenizer, columns)
        if made.layout.chat and rows is not None and not samples.askable(made, rows):
            made = replace(made, layout=refusing(made.layout.name, _PARTS, made.layout.stops))
        yield _Candidate(made, dataset, rows, len(rows) if hasattr(rows, "__len__") else 0)

"""Measures a trained model beside its base: python -m envtune.engine.evaluate.evaluate ORDER.json

The order names `config` (the run's YAML), `artifact` (the adapter's folder, or the
model's), `results` (the file to write), and what to measure: `prompts`, `pairs`,
`generation`, `dataset`, `tasks`, `tasks_path`, `tasks_limit`. Whatever can be refused is,
before a model is loaded.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import layouts
from envtune.errors import Exit, Problem, Refused
from envtune.runs import prepared
from envtune.settings.prompts import Prompt

# datasets starts a process that imports this file once more, under another name, and wants
# nothing of it: torch, transformers and Axolotl would cost it ten seconds.
if __name__ != "__mp_main__":
    from envtune.engine.evaluate import generation, losses, prompting
    from envtune.engine.evaluate.benchmarks import Tasks
    from envtune.engine.evaluate.findings import Findings, Side
    from envtune.engine.evaluate.losses import IGNORED, Row
    from envtune.engine.evaluate.trained import BASE, Trained, read


def evaluate(order: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the order asks for, as results.json holds it. Raises Refused."""
    tasks = order["tasks"] and Tasks(order["tasks"], order["tasks_path"], order["tasks_limit"])
    trained = read(Path(order["config"]), Path(order["artifact"]), order["dataset"])
    asked = [Prompt(**prompt) for prompt in (*order["prompts"], *order["pairs"])]
    encoded = prompting.encode(
        asked, trained.cfg, trained.tokenizer, layouts.read(trained.artifact.parent)
    )
    rows, source = _validation(trained, order["dataset"], Path(order["config"]).parents[1])
    settings = generation.settings(order["generation"])
    judged: list[Row] = []  # every answer, for the base to judge

    def measure(side: str, model: Any) -> Side:
        answers = _answers(side, model, trained, encoded, settings) if asked else []
        judged.extend(_row(ids, a.ids) for ids, a in zip(encoded, answers, strict=True))
        return Side(
            losses=losses.sums(model, rows, _shown(f"{side}: rows", len(rows))),
            answers=answers,
            judgements=losses.sums(model, judged) if side == BASE else [],
            tasks=tasks.score(model, trained.tokenizer) if tasks else {},
        )

    findings = Findings(trained.each(measure), asked, len(order["pairs"]), trained.tokenizer)
    return findings.results(source, settings)


def _shown(what: str, total: int) -> Callable[[int], None]:
    return lambda done: print(f"evaluate: {what}: {done} of {total}", flush=True)


def _validation(trained: Trained, dataset: str | None, run_dir: Path) -> tuple[list[Row], str]:
    """The rows that the loss is measured on, and where they come from or why there are none."""
    # Its public sister loads the training rows too, and counts their steps.
    from axolotl.utils.data.sft import _load_and_prepare_datasets

    cfg = trained.cfg
    if cfg.rl or cfg.reward_model or cfg.process_reward_model:
        return [], "preferences have no loss of their own"
    if cfg.processor_type:
        return [], "rows with images are not measured"
    if cfg.streaming or cfg.pretraining_dataset:
        return [], "streamed rows are not measured"
    if not (cfg.val_set_size or cfg.test_datasets):
        return [], "no rows were held back; set AXOLOTL_VAL_SET_SIZE, or SFT_EVAL_DATASET"
    if dataset is None and (folder := prepared.held(run_dir)) is not None:
        from datasets import load_from_disk

        held = load_from_disk(str(folder))
    else:
        split = "test" if cfg.test_datasets else "train"
        _, held, _ = _load_and_prepare_datasets(trained.tokenizer, cfg, split=split)
    rows = [(row["input_ids"], row["labels"]) for row in held]
    labelled = [row for row in rows if any(label != IGNORED for label in row[1][1:])]
    if not labelled:
        raise Refused([Problem("", "no token of the validation rows is trained", Exit.DATA)])
    return labelled, dataset or "the rows that training held back"


def _answers(
    side: str,
    model: Any,
    trained: Trained,
    encoded: Sequence[Sequence[int]],
    settings: Mapping[str, Any],
) -> list[generation.Answer]:
    told = layouts.read(trained.artifact.parent)
    if (longest := generation.context(model)) is not None:
        settings = {**settings, **_room(encoded, longest, settings["max_new_tokens"])}
    stops = told.stops if told else ()
    config = generation.configured(settings, trained.tokenizer, model, trained.cfg, stops)
    shown = _shown(f"{side}: answers", len(encoded))
    return generation.answer(model, encoded, config, trained.cfg.seed or 42, shown)


def _room(encoded: Sequence[Sequence[int]], context: int, wanted: int) -> dict[str, int]:
    for number, ids in enumerate(encoded, 1):
        if len(ids) >= context:
            what = f"prompt {number} has {len(ids)} tokens; the model takes {context}"
            raise Refused([Problem("", what, Exit.DATA)])
    return {"max_new_tokens": min(wanted, context - max(map(len, encoded)))}


def _row(prompt: Sequence[int], answer: Sequence[int]) -> Row:
    """A prompt and its answer, of which the answer counts."""
    return [*prompt, *answer], [*[IGNORED] * len(prompt), *answer]


def main() -> None:
    logging.getLogger("axolotl").setLevel(logging.WARNING)
    order = json.loads(Path(sys.argv[1]).read_text())
    try:
        results = evaluate(order)
    except Refused as refusal:
        print(f"evaluate: refused: {refusal}", file=sys.stderr, flush=True)
        sys.exit(refusal.exit)
    files.write_json(Path(order["results"]), results)


if __name__ == "__main__":
    main()

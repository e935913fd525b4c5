"""Where a training begins and what it keeps: SFT_RESUME_FROM, saves by time and by epoch, the best.

The runs are those of the session, cut back to the checkpoints that a kill would leave.
"""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from envtune.artifacts import best, checkpoints
from tests.conftest import Once
from tests.harness import Entrypoint, losses, read
from tests.test_damaged import ADAPTER, OPTIMIZER, interrupted, zeroed

NAMED = "SFT_RESUME_FROM"
# An evaluation at each save, worse and worse: the learning rate is far too high from the start.
EVALUATED = {
    "AXOLOTL_VAL_SET_SIZE": "0.2",
    "AXOLOTL_SAVE_STEPS": "5",
    "AXOLOTL_EVAL_STEPS": "5",
    "AXOLOTL_MAX_STEPS": "20",
    "AXOLOTL_LR_SCHEDULER": "constant",
    "AXOLOTL_SAVE_TOTAL_LIMIT": "9",
    "AXOLOTL_LOAD_BEST_MODEL_AT_END": "true",
}


def evaluations(run: Path) -> dict[int, float]:
    lines = (run / "eval" / "metrics.jsonl").read_text().splitlines()
    return {line["step"]: line["eval_loss"] for line in map(json.loads, lines)}


def test_off_begins_an_unfinished_run_anew_and_loses_nothing(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    run, new, _ = interrupted(entrypoint, lora)
    before = (run / "metrics.jsonl").read_bytes()
    result = entrypoint.run(**{NAMED: "off"}, **forking)
    assert result.code == 0, result.err[-3000:]
    assert "resuming from" not in result.err
    assert f"begins anew ({NAMED}=off)" in result.err
    kept = run / "checkpoints.kept-1"
    assert checkpoints.committed(kept / new.name)
    assert (kept / "metrics.jsonl").read_bytes() == before
    assert losses(run) == losses(lora)
    assert (run / "adapter" / ADAPTER).read_bytes() == (lora / "adapter" / ADAPTER).read_bytes()


def test_a_path_is_where_a_new_run_begins_whichever_of_the_two_names_says_it(
    entrypoint: Entrypoint, lora: Path, tmp_path: Path, forking: dict[str, str]
) -> None:
    """And a checkpoint of a later step than the last is told at once, by either kind of end."""
    mine = tmp_path / "mine"
    shutil.copytree(checkpoints.named(lora / "checkpoints")[0], mine)
    step = read(mine / "trainer_state.json")["global_step"]
    result = entrypoint.run(**{NAMED: "mine"}, **forking)
    assert result.code == 0, result.err[-3000:]
    (run,) = (path.parent for path in entrypoint.folder.glob("outputs/*/run.json"))
    assert losses(run) == [line for line in losses(lora) if line[0] > step]
    for settings, said in (
        ({"AXOLOTL_MAX_STEPS": "3"}, f"is of step {step} and AXOLOTL_MAX_STEPS is 3"),
        ({"AXOLOTL_NUM_EPOCHS": "0.1"}, f"it is of step {step} and the training ends at 2"),
    ):
        result = entrypoint.run(**{NAMED: str(mine)}, **settings, **forking)
        assert result.code == 1, result.err[-3000:]
        assert said in result.lines[-1]


def test_what_cannot_be_begun_with_is_one_line_with_its_name(
    entrypoint: Entrypoint, lora: Path, full: Path, tmp_path: Path
) -> None:
    damaged, other = tmp_path / "damaged", tmp_path / "other"
    shutil.copytree(checkpoints.named(lora / "checkpoints")[0], damaged)
    shutil.copytree(checkpoints.named(full / "checkpoints")[0], other)
    (tmp_path / "empty").mkdir()
    result = entrypoint.run(**{NAMED: "nowhere"})
    assert (result.code, NAMED in result.err) == (1, True)
    assert "nowhere is not there" in result.err
    result = entrypoint.run(**{NAMED: "empty"})
    assert (result.code, "is no checkpoint" in result.err) == (1, True), result.err[-3000:]
    result = entrypoint.run(**{NAMED: str(other), "AXOLOTL_RESUME_FROM_CHECKPOINT": str(damaged)})
    assert (result.code, "unset one" in result.err) == (1, True), result.err[-3000:]
    result = entrypoint.run(**{NAMED: str(other)})
    assert result.code == 1, result.err[-3000:]
    assert f"{other} holds a whole model, and lora is to be trained" in result.lines[-1]
    zeroed(OPTIMIZER)(damaged, damaged, None)  # type: ignore[arg-type]
    result = entrypoint.run(**{NAMED: str(damaged)})
    assert result.code == 1, result.err[-3000:]
    assert f"{damaged} is damaged: {OPTIMIZER} has other bytes" in result.lines[-1]


@pytest.fixture(scope="session")
def evaluated(once: Once, settings: dict[str, str], forking: dict[str, str]) -> Path:
    """A run that was evaluated at each save and ends with its best weights."""
    more = settings | EVALUATED | forking
    return once("evaluated", lambda folder: Entrypoint(folder, more).train())


def test_the_best_checkpoint_has_a_link_and_is_the_result(evaluated: Path) -> None:
    told = evaluations(evaluated)
    first = min((step for step in told if step and step % 5 == 0), key=lambda s: (told[s], s))
    link = evaluated / "checkpoints" / best.LINK
    assert os.readlink(link) == f"checkpoint-{first}"
    assert checkpoints.committed(link)
    assert (link / ADAPTER).read_bytes() == (evaluated / "adapter" / ADAPTER).read_bytes()


def test_a_best_that_is_damaged_is_not_loaded_and_the_next_best_is(
    entrypoint: Entrypoint, evaluated: Path, forking: dict[str, str]
) -> None:
    """A start compares the newest with its digests; the best is another, and is as well."""
    run = evaluated
    told = {s: v for s, v in evaluations(run).items() if s and s % 5 == 0}
    ordered = sorted(told, key=lambda step: (told[step], step))
    copy = entrypoint.folder / "outputs" / run.name
    shutil.copytree(run, copy, symlinks=True)
    shutil.rmtree(copy / "adapter")
    (copy / ".complete").unlink()
    for name, change in (("run.json", {"stages": {}}), ("outcome.json", {"state": "training"})):
        (copy / name).write_text(json.dumps(read(copy / name) | change))
    shutil.rmtree(checkpoints.named(copy / "checkpoints")[-1])
    bad = next(step for step in ordered if step < 15)
    path = copy / "checkpoints" / f"checkpoint-{bad}"
    content = bytearray((path / ADAPTER).read_bytes())
    content[-4] ^= 1
    (path / ADAPTER).write_bytes(content)
    state = copy / "checkpoints" / "checkpoint-15" / "trainer_state.json"
    _make_best(copy / "checkpoints", bad, state)
    result = entrypoint.run(**EVALUATED, **{NAMED: "latest"}, **forking)
    assert result.code == 0, result.err[-3000:]
    assert re.search(
        rf"the best, checkpoint-{bad}, is damaged: {ADAPTER} has other bytes", result.err
    )
    assert (copy / "checkpoints" / "damaged" / f"checkpoint-{bad}").is_dir()
    link = copy / "checkpoints" / best.LINK
    assert f"the result has the weights of {os.readlink(link)}" in result.err
    assert os.readlink(link) != path.name
    assert (link / ADAPTER).read_bytes() == (copy / "adapter" / ADAPTER).read_bytes()
    assert read(copy / "run.json")["damaged"][0]["checkpoint"] == path.name


def _make_best(folder: Path, step: int, state: Path) -> None:
    """Has a log say that a step was the best, whatever it was, with a manifest that agrees."""
    noted = read(state)
    for line in noted["log_history"]:
        if line.get("step") == step and "eval_loss" in line:
            line["eval_loss"] = 1e-3
    noted |= {"best_metric": 1e-3, "best_global_step": step}
    noted["best_model_checkpoint"] = f"checkpoints/checkpoint-{step}"
    state.write_text(json.dumps(noted))
    checkpoints.commit(state.parent, 15, read(state.parent / "envtune.json")["run"])


def test_saves_by_time_come_beside_those_by_epoch_and_change_nothing(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    settings = {"AXOLOTL_SAVE_STRATEGY": "epoch", "AXOLOTL_SAVE_TOTAL_LIMIT": "100"}
    run = entrypoint.train(**settings, SFT_SAVE_MINUTES="0.000001", **forking)
    steps = [checkpoints.step_of(path) for path in checkpoints.named(run / "checkpoints")]
    assert steps == list(range(1, 39))
    assert losses(run) == losses(lora)
    assert (run / "adapter" / ADAPTER).read_bytes() == (lora / "adapter" / ADAPTER).read_bytes()


def test_saves_by_epoch_are_one_for_each_and_one_is_enough_to_keep(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    settings = {"AXOLOTL_SAVE_STRATEGY": "epoch", "AXOLOTL_SAVE_TOTAL_LIMIT": "1"}
    run = entrypoint.train(**settings, **forking)
    assert [path.name for path in checkpoints.named(run / "checkpoints")] == ["checkpoint-38"]
    assert read(run / "run.json")["stages"]["train"]["saves"] == 2
    assert losses(run) == losses(lora)


def test_two_processes_save_by_time_and_load_the_same_best(entrypoint: Entrypoint) -> None:
    more = {"AXOLOTL_MAX_STEPS": "4", "AXOLOTL_SAVE_STEPS": "2", "AXOLOTL_EVAL_STEPS": "2"}
    run = entrypoint.train(**EVALUATED | more, NPROC="2", SFT_SAVE_MINUTES="0.000001")
    saved = [checkpoints.step_of(path) for path in checkpoints.named(run / "checkpoints")]
    assert saved == [1, 2, 3, 4]
    link = run / "checkpoints" / best.LINK
    assert os.readlink(link) in ("checkpoint-2", "checkpoint-4")
    assert (link / ADAPTER).read_bytes() == (run / "adapter" / ADAPTER).read_bytes()

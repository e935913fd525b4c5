"""What the user has beside a run, in it and in its place: no stage destroys any of it."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from envtune.artifacts import checkpoints
from envtune.runs import contents
from tests.harness import Entrypoint, clean_environ, envtune, metrics, read
from tests.harness import contents as everything

STAGES = {
    "SFT_MERGE": "true",
    "SFT_EVALUATE": "true",
    "AXOLOTL_VAL_SET_SIZE": "8",
    "WANDB_MODE": "offline",
    "AXOLOTL_MAX_STEPS": "12",
    "AXOLOTL_SAVE_STEPS": "3",
}
BESIDE = ("notes.md", ".gitkeep", "lost+found/data", "config.json", "checkpoint-7/model.bin",
          "adapter_config.json", "random.txt")  # fmt: skip


def put(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{name} of somebody")
    return everything(folder)


def test_a_folder_of_somebodys_is_refused_before_anything_starts(
    entrypoint: Entrypoint, tmp_path: Path
) -> None:
    mine = tmp_path / "thesis"
    before = put(mine, ("README.md", "metrics.jsonl", "report.json", "serving/a", "merged/b"))
    for verb in ([], ["envtune", "check"], ["envtune", "configure"]):
        result = entrypoint.run(*verb, AXOLOTL_OUTPUT_DIR=str(mine))
        assert result.code == 1
        assert result.said == [
            f"AXOLOTL_OUTPUT_DIR: {mine} is no run's folder, and a run would write to README.md, "
            "merged, metrics.jsonl, report.json, serving in it; name an empty folder, or move "
            "them away"
        ]
    assert everything(mine) == before
    assert not (tmp_path / "outputs").exists()


def test_no_stage_touches_what_lies_beside_a_run_and_what_was_edited_is_kept(
    entrypoint: Entrypoint, tmp_path: Path, forking: dict[str, str]
) -> None:
    """From the first start over a stop, a resume, each lone stage and a pruning to the end."""
    mine, store = tmp_path / "volume", tmp_path / "store"
    before = put(mine, BESIDE)
    database = f"sqlite:///{tmp_path / 'mlflow.db'}"
    given = {
        **forking, **STAGES, "AXOLOTL_OUTPUT_DIR": str(mine), "MLFLOW_TRACKING_URI": database,
        "SFT_PUSH_TO": f"file://{store}",
    }  # fmt: skip
    start = entrypoint.start(**given)
    start.until(lambda: any(m["step"] >= 4 for m in metrics(mine)))
    start.signal()
    assert start.wait().code == 143
    foreign = mine / "checkpoints" / "checkpoint-500"
    shutil.copytree(next((mine / "checkpoints").glob("checkpoint-*")), foreign)
    (foreign / "envtune.json").unlink()
    whole = everything(foreign)
    result = entrypoint.run(**given)
    assert result.code == 0, result.err[-4000:]

    assert _beside(mine) == before
    assert everything(mine / "checkpoint-500.kept-1") == whole
    _tracked_once(mine, tmp_path / "mlflow.db")
    published = everything(store)
    _edited_is_kept(entrypoint, mine, given)
    assert _beside(mine) == before
    assert everything(store).keys() == published.keys()
    _pruned(entrypoint, mine)
    assert entrypoint.run(**given).code == 0
    assert _beside(mine) == before


def _beside(folder: Path) -> dict[str, bytes]:
    """What lies in a run's folder and is not a run's: the list of its names is whole."""
    found = everything(folder)
    kept = {n: b for n, b in found.items() if ".kept-" not in n}
    return {n: b for n, b in kept.items() if not contents.is_ours(n.split("/")[0])}


def _tracked_once(run: Path, database: Path) -> None:
    """Both starts are one run of W&B and one of MLflow."""
    offline = list((run / "wandb").glob("offline-run-*"))
    assert len(offline) == 2
    assert {path.name.rsplit("-", 1)[1] for path in offline} == {
        read(run / contents.TRACKED)["wandb"]
    }
    with sqlite3.connect(database) as base:
        assert base.execute("select status from runs").fetchall() == [("FINISHED",)]
        steps = base.execute("select distinct step from metrics where key = 'loss' order by step")
        assert [step for (step,) in steps] == list(range(1, 13))


def _edited_is_kept(entrypoint: Entrypoint, run: Path, given: dict[str, str]) -> None:
    (run / "README.md").write_text("my own card")
    (run / "serving" / "notes.txt").write_text("mine")
    (run / "merged" / "config.json").write_text("{}")
    page = next(iter((run / "eval").glob("*.md")))
    page.write_text("annotated")
    for verb in ("export", "evaluate", "publish"):
        done = entrypoint.run("envtune", verb, str(run), **given)
        assert done.code == 0, done.err[-3000:]
        assert (run / contents.COMPLETE).exists()
    assert (run / "README.md.kept-1").read_text() == "my own card"
    assert (run / "serving.kept-1" / "notes.txt").read_text() == "mine"
    assert (run / "merged" / "config.json").read_text() == "{}", "it was made before"
    assert page.with_name(f"{page.name}.kept-1").read_text() == "annotated"
    kept = sorted(path.name for path in run.glob("*.kept-*"))
    assert kept == ["README.md.kept-1", "checkpoint-500.kept-1", "serving.kept-1"]


def _pruned(entrypoint: Entrypoint, run: Path) -> None:
    before = everything(run)
    environ = clean_environ(SFT_OUTPUTS_DIR=str(entrypoint.folder / "outputs"))
    dry = envtune("runs", "--prune", "--dry-run", cwd=entrypoint.folder, environ=environ)
    assert (dry.code, everything(run)) == (0, before)
    done = envtune("runs", "--prune", cwd=entrypoint.folder, environ=environ)
    assert done.code == 0, done.err
    gone = before.keys() - everything(run).keys()
    assert gone
    assert all(name.startswith("checkpoints/checkpoint-") for name in gone)


def test_a_resume_from_the_last_step_says_that_nothing_was_left(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    last = max((lora / "checkpoints").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    start = entrypoint.start(AXOLOTL_RESUME_FROM_CHECKPOINT=str(last), **forking)
    result = start.wait()
    assert result.code == 0, result.err[-3000:]
    assert any("nothing was left to train" in line for line in result.said)
    assert read(start.only_run() / "report.json")["tokens_per_second"] is None
    assert "tokens/s" not in result.out


@pytest.mark.parametrize("more", [0, 2])
def test_a_resume_in_the_middle_of_an_epoch_trains_no_step_too_many(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str], more: int
) -> None:
    start, *_ = checkpoints.ours(lora / "checkpoints")
    last = read(start / "trainer_state.json")["global_step"] + more
    given = {**forking, "AXOLOTL_MAX_STEPS": str(last), "SFT_LOG_LEVEL": "DEBUG"}
    begun = entrypoint.start(AXOLOTL_RESUME_FROM_CHECKPOINT=str(start), **given)
    result = begun.wait()
    assert result.code == 0, result.err[-3000:]
    assert any("nothing was left to train" in line for line in result.said) == (not more)
    run = begun.only_run()
    assert read(run / "report.json")["steps"] == last
    assert [m["step"] for m in metrics(run)] == list(range(last - more + 1, last + 1))
    if not more:
        weights = "adapter_model.safetensors"
        assert (run / "adapter" / weights).read_bytes() == (start / weights).read_bytes()


@pytest.mark.parametrize("verb", ["evaluate"])
def test_the_newest_run_that_is_trained_is_meant_and_not_the_newest_attempt(
    entrypoint: Entrypoint, lora: Path, verb: str, tmp_path: Path
) -> None:
    outputs = tmp_path / "outputs"
    shutil.copytree(lora, outputs / lora.name, symlinks=True)
    made = entrypoint.run("envtune", "configure", AXOLOTL_SEED="5")
    assert made.code == 0, made.err
    done = entrypoint.run("envtune", verb)
    assert any(
        line.startswith(f"{lora.name}: the newest run that is trained") for line in done.said
    )
    assert done.code == 1, "no setting asks for it"

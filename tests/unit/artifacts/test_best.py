"""Which checkpoint is the best, and the link that says so."""

import os
from pathlib import Path
from typing import Any

import pytest

from envtune.artifacts import best, checkpoints
from envtune.artifacts.best import Rating
from envtune.runs.contents import CHECKPOINTS

LOSSES = {10: 2.0, 20: 1.5, 30: 1.5, 40: 3.0, 50: 0.1, 60: float("nan")}
HISTORY: list[Any] = [
    *({"step": step, "eval_loss": loss, "eval_accuracy": loss} for step, loss in LOSSES.items()),
    {"step": 30, "loss": 0.01}, "half", {"eval_loss": 0.0},
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of some of the steps; that of step 50 was never committed."""
    made = tmp_path / CHECKPOINTS
    for step in (10, 20, 30, 40, 50, 60, 70):
        (made / f"checkpoint-{step}").mkdir(parents=True)
        (made / f"checkpoint-{step}" / "weights").write_text("w")
        if step != 50:
            checkpoints.commit(made / f"checkpoint-{step}", step)
    return made


@pytest.mark.parametrize(
    ("metric", "more", "step"),
    [
        (None, None, 20), ("eval_loss", None, 20), ("loss", None, 20), ("accuracy", None, 40),
        ("accuracy", False, 20), ("loss", True, 40), ("nothing", None, None),
    ],
)  # fmt: skip
def test_the_best_is_a_whole_one_that_was_measured_and_the_earliest_of_equals(
    folder: Path, metric: str | None, more: bool | None, step: int | None
) -> None:
    found = best.find(folder, HISTORY, best.rating(metric, more))
    assert found == (folder / f"checkpoint-{step}" if step else None)


def test_the_link_holds_wherever_the_run_is_moved_to(folder: Path, tmp_path: Path) -> None:
    best.point(folder, folder / "checkpoint-10")
    best.point(folder, folder / "checkpoint-20")
    assert os.readlink(folder / best.LINK) == "checkpoint-20"
    moved = folder.rename(tmp_path / "moved")
    assert (moved / best.LINK / "weights").read_text() == "w"
    assert [path.name for path in checkpoints.named(moved)][-1] == "checkpoint-70"


def test_the_link_goes_with_what_it_names_and_no_file_of_anybodys_does(folder: Path) -> None:
    best.point(folder, folder / "checkpoint-10")
    best.drop_dangling(folder)
    assert (folder / best.LINK).is_symlink()
    checkpoints.remove(folder / "checkpoint-10")
    best.drop_dangling(folder)
    assert not os.path.lexists(folder / best.LINK)
    (folder / best.LINK).mkdir()
    (folder / best.LINK / "mine").touch()
    best.point(folder, folder / "checkpoint-20")
    assert (folder.parent / "best.kept-1" / "mine").exists()
    best.point(folder, None)
    assert not os.path.lexists(folder / best.LINK)


def test_the_best_is_kept_by_rotation(folder: Path) -> None:
    checkpoints.rotate(folder, 2, best.find(folder, HISTORY, Rating()))
    left = [path.name for path in checkpoints.ours(folder) if checkpoints.committed(path)]
    assert left == ["checkpoint-20", "checkpoint-70"]

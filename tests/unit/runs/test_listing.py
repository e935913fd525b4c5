"""Listing runs, and what of them may be freed."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from envtune.artifacts import checkpoints
from envtune.cli import runs as verb
from envtune.runs import contents, folders, listing, record
from envtune.runs.lease import Lease
from envtune.runs.listing import Listed
from envtune.settings.typed import Setting
from tests.unit.builders import run_config
from tests.unit.runs.test_folders import claim

DONE = {"train": {"outcome": "done", "artifact": "adapter"}}


def made(tmp_path: Path, key: str, minute: int, *, finished: bool = True) -> folders.Run:
    run = claim(tmp_path, key)
    record.update(
        run, created=f"2026-01-01T10:{minute:02}:00+00:00", stages=DONE if finished else {}
    )
    checkpoint = run.folder / "checkpoints" / "checkpoint-4"
    checkpoint.mkdir(parents=True)
    (checkpoint / "optimizer.pt").write_bytes(b"x" * 1000)
    (checkpoint / "adapter_model.safetensors").write_bytes(b"y" * 500)
    checkpoints.commit(checkpoint, 4)
    (run.folder / "adapter").mkdir()
    os.link(checkpoint / "adapter_model.safetensors", run.folder / "adapter" / "model")
    if finished:
        record.complete(run, [])
    return run


def test_the_newest_trained_run_is_found_behind_newer_attempts(tmp_path: Path) -> None:
    assert listing.trained(tmp_path / "out") is None
    older = made(tmp_path, "a", 1)
    newer = made(tmp_path, "b", 2)
    made(tmp_path, "c", 3, finished=False)
    assert listing.trained(tmp_path / "out") == newer
    assert [run.name[-1] for run in listing.runs(tmp_path / "out")] == ["3", "2", "1"]
    record.update(older, created="2026-01-01T12:00:00+09:00")  # earlier in the day than it looks
    assert listing.trained(tmp_path / "out") == newer


def test_a_run_in_a_folder_of_its_own_is_listed_while_it_is_the_newest(tmp_path: Path) -> None:
    run = claim(tmp_path, config=run_config(output_dir=str(tmp_path / "mine")))
    assert listing.runs(tmp_path / "out") == [run]


def test_only_the_checkpoints_of_a_finished_run_are_freed(tmp_path: Path) -> None:
    done, going = made(tmp_path, "a", 1), made(tmp_path, "b", 2, finished=False)
    every = [done, going]
    [checkpoint] = listing.freeable(done, every)
    assert listing.freeable(going, every) == []
    manifest = (checkpoint / checkpoints.MANIFEST).stat().st_size
    assert listing.freed([checkpoint]) == 1000 + manifest, "the weights have a name elsewhere"
    with Lease(done.folder):
        assert listing.freeable(done, every) == []
    foreign = done.folder / "checkpoints" / "checkpoint-9"
    foreign.mkdir()
    (done.folder / "checkpoints" / "checkpoint-8").symlink_to(going.folder / "checkpoints")
    assert listing.freeable(done, every) == [checkpoint]
    listing.prune(done, [checkpoint])
    assert not checkpoint.exists()
    assert foreign.is_dir()
    assert (done.folder / "adapter" / "model").read_bytes() == b"y" * 500
    assert listing.freeable(done, every) == []


def test_a_checkpoint_that_another_run_started_from_stays(tmp_path: Path) -> None:
    done, going = made(tmp_path, "a", 1), made(tmp_path, "b", 2, finished=False)
    [checkpoint] = listing.freeable(done, [done, going])
    record.update(going, resolved={"resume_from": str(checkpoint)})
    assert listing.freeable(done, [done, going]) == []


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("named", ["", "/", "/adapter_model.safetensors", "0"])
def test_a_checkpoint_that_is_anothers_base_stays_by_whatever_way_it_is_named(
    tmp_path: Path, named: str, *, finished: bool
) -> None:
    """The base of a finished run is served; one that only begins with the same is another."""
    done, other = made(tmp_path, "a", 1), made(tmp_path, "b", 2, finished=finished)
    [checkpoint] = listing.freeable(done, [done, other])
    (tmp_path / "way").symlink_to(tmp_path / "out")
    by_a_link = listing.runs(tmp_path / "way")[-1]
    assert by_a_link.name == done.name
    record.update(other, resolved={"axolotl": {"base_model": {"value": f"{checkpoint}{named}"}}})
    for run in (done, by_a_link):
        assert bool(listing.freeable(run, [done, other])) == (named == "0")


@pytest.mark.parametrize("wide", [80, 100, 60, None])
def test_the_table_fits_the_terminal_and_keeps_the_number(wide: int | None, tmp_path: Path) -> None:
    name = f"{'long-' * 20}run1234"
    run = folders.Run(name, tmp_path, tmp_path, "key")
    listed = [
        Listed(run, state, 1_234_567, 12.34567, size, datetime(2026, 1, 1, tzinfo=UTC))
        for state, size in (("evaluate failed", 999_949_999_999), ("done", 0))
    ]
    text = verb.table(listed, datetime(2029, 1, 1, tzinfo=UTC), wide)
    for line in text.splitlines():
        assert wide is None or len(line) <= wide
    if wide is None or wide >= 80:
        assert text.count("run1234") == 2
    assert "1096 d" in text


@pytest.mark.parametrize(
    ("given", "served"),
    [
        ({"port": 9000}, {"port": 9000, "max_model_len": 512}),
        ({"max_model_len": None}, {"port": 8001, "max_model_len": None}),
        ({"dtype": "float16"}, {"port": 8001, "max_model_len": 512, "dtype": "float16"}),
    ],
)
def test_a_flag_of_today_leaves_the_runs_other_flags(
    given: dict[str, object], served: dict[str, object], tmp_path: Path
) -> None:
    run = claim(tmp_path)
    flags = {"SFT_SERVE_ARGS": {"port": 8001, "max_model_len": 512}}
    text = json.dumps(record.resolved(run_config(**flags), {}))
    (run.folder / contents.CONFIG / "resolved.json").write_text(text)
    today = {"SFT_SERVE_ARGS": Setting(given, "SFT_SERVE_PORT", "environment")}
    assert record.load_resolved(run, today).setting("SFT_SERVE_ARGS") == served
    assert record.load_resolved(run).setting("SFT_SERVE_ARGS") == flags["SFT_SERVE_ARGS"]


def test_a_page_that_somebody_edited_is_kept_beside(tmp_path: Path) -> None:
    run = claim(tmp_path)
    page = run.folder / contents.CARD
    for text in ("one", "two"):
        record.write_page(run, page, text)
    assert sorted(p.name for p in run.folder.iterdir()) == ["README.md", "config", "run.json"]
    page.write_text("mine")
    record.write_page(run, page, "three")
    record.write_page(run, page, "four")
    assert page.read_text() == "four"
    assert (run.folder / "README.md.kept-1").read_text() == "mine"


@pytest.mark.parametrize("change", ["nothing", "a file", "an edit", "a link", "no list"])
def test_a_folder_is_replaced_only_where_it_is_as_it_was_made(change: str, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_text("of the run")
    target = tmp_path / "merged"
    checkpoints.publish(tmp_path / "source", target, ["weights"])
    if change == "a file":
        (target / "notes.txt").write_text("mine")
    elif change == "an edit":
        (target / "weights").unlink()
        (target / "weights").write_text("of the bun")
    elif change == "a link":
        target.rename(tmp_path / "elsewhere")
        target.symlink_to(tmp_path / "elsewhere")
    elif change == "no list":
        (tmp_path / ".merged.files").unlink()
    before = sorted(p.read_bytes() for p in target.iterdir())
    checkpoints.publish(tmp_path / "source", target, ["weights"])
    kept = tmp_path / "merged.kept-1"
    assert kept.exists() == (change != "nothing")
    assert not kept.exists() or sorted(p.read_bytes() for p in kept.iterdir()) == before
    assert (target / "weights").read_text() == "of the run"
    assert not target.is_symlink()

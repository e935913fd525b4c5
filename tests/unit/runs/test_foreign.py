"""Folders that hold somebody's files: what a run would write is refused, the rest stays."""

from pathlib import Path

import pytest

from envtune.cli import termination
from envtune.errors import Refused
from envtune.runs import contents, folders
from tests.harness import contents as everything
from tests.unit.builders import run_config
from tests.unit.runs.test_folders import claim

_BESIDE = (".merged.partial", ".serving.old", ".merged.merging", ".adapter.files",
           ".starts-0123456789abcdef.json")  # fmt: skip


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
@pytest.mark.parametrize("name", sorted({*contents.NAMES, *_BESIDE}))
def test_a_name_that_a_run_writes_is_refused_and_stays(
    name: str, kind: str, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    if kind == "file":
        (mine / name).write_text("of somebody")
    elif kind == "folder":
        (mine / name).mkdir()
        (mine / name / "thesis.tex").write_text("of somebody")
    else:
        (mine / name).symlink_to(tmp_path / "nowhere")
    before = everything(mine)
    for config in (run_config(output_dir=str(mine)), run_config(output_dir=f"{mine}/")):
        with pytest.raises(Refused, match=r"AXOLOTL_OUTPUT_DIR: .* is no run's folder") as refused:
            claim(tmp_path, config=config)
        assert name in str(refused.value)
    assert everything(mine) == before
    assert (mine / name).is_symlink() == (kind == "link")


@pytest.mark.parametrize(
    "name",
    ["lost+found", ".gitkeep", ".Trash-0", ".nfs0001", "notes.md", "adapter_model.safetensors",
     "checkpoint-100", "config.json", "adapter2", ".merged.mine", "LEASE"],
)  # fmt: skip
def test_other_names_may_lie_beside_a_run(name: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / name).write_text("of somebody")
    link = tmp_path / "link"
    link.symlink_to(mine)
    run = claim(tmp_path, config=run_config(output_dir=str(link)))
    assert (run.folder / name).read_text() == "of somebody"
    assert folders.read_record(mine)["key"] == "key"


def test_a_forced_name_on_somebodys_folder_is_told_by_its_own_setting(tmp_path: Path) -> None:
    (tmp_path / "out" / "mine-run7").mkdir(parents=True)
    (tmp_path / "out" / "mine-run7" / "merged").write_text("of somebody")
    with pytest.raises(Refused, match=r"FORCE_RUN_NAME: .*merged"):
        claim(tmp_path, config=run_config(FORCE_RUN_NAME="mine-run7"))


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("", True),
        ("tiny-llama-rows-full-run1\n", True),
        ("tiny-llama-rows-full-ts20260101000000\n", True),
        ("/workspace/out\n", True),
        ("2026-01-01", False),
        ("/a\n/b\n", False),
        ("the latest results of my thesis\n", False),
        ("\x00\x01" * 5000, False),
        ("\udce9", False),
        ("x" * 10_000, False),
    ],
)
def test_a_pointer_that_is_somebodys_is_told_before_it_is_written(
    text: str, ours: bool, tmp_path: Path
) -> None:
    path = tmp_path / folders.LATEST
    path.write_bytes(text.encode(errors="surrogateescape"))
    problem = folders.foreign_pointer("SFT_OUTPUTS_DIR", tmp_path)
    assert (problem is None) == ours
    path.unlink()
    assert folders.foreign_pointer("SFT_OUTPUTS_DIR", tmp_path) is None
    path.mkdir()
    assert folders.foreign_pointer("SFT_OUTPUTS_DIR", tmp_path) is not None


@pytest.mark.parametrize(
    ("held", "stays"),
    [(None, False), ("", False), ('{"a": 1}\n', True), ('{"a": 1}', True), ("x" * 5000, True)],
)  # fmt: skip
def test_a_file_that_is_no_last_word_is_not_written_over(
    held: str | None, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "train.jsonl"
    if held is not None:
        path.write_text(held)
    monkeypatch.setenv("TERMINATION_LOG_FILE", str(path))
    for word in ("the end", "the second end"):
        termination.terminate(word)
        assert path.read_text() == (held if stays else word)

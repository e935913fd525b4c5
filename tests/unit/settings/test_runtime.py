"""Variables of other tools under old names, and the two roots of other pipelines."""

from pathlib import Path

import pytest

from envtune.settings import paths, runtime, sources
from envtune.settings.runtime import RENAMED
from tests.unit.builders import MODEL_AND_DATA, load


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_old_name_is_passed_on_as_the_new_one_and_told(old: str, new: str) -> None:
    found, notes = runtime.translated({old: "x", "PATH": "/bin"})
    assert found == {new: "x", "PATH": "/bin"}
    assert notes == [f"{old} is an old name; it is passed on as {new}"]


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_a_new_name_that_is_set_counts(old: str, new: str) -> None:
    found, notes = runtime.translated({old: "x", new: "y"})
    assert found == {new: "y"}
    assert notes == [f"{old} is the old name of {new}, which is set and counts"]


def test_two_names_with_one_value_are_no_contradiction() -> None:
    found, notes = runtime.translated({"TRANSFORMERS_CACHE": "x", "HF_HUB_CACHE": "x"})
    assert found == {"HF_HUB_CACHE": "x"}
    assert "counts" not in "".join(notes)


def test_an_empty_old_name_is_no_setting() -> None:
    assert runtime.translated({"TRANSFORMERS_CACHE": ""}) == ({}, [])


def test_the_environment_itself_is_not_changed() -> None:
    environ = {"TRANSFORMERS_CACHE": "x"}
    runtime.translated(environ)
    assert environ == {"TRANSFORMERS_CACHE": "x"}


def test_a_child_sees_the_new_name_alone() -> None:
    inputs = sources.read(environ={"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"})
    assert inputs.passed_on == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert any("PYTORCH_ALLOC_CONF" in note for note in inputs.notes)


@pytest.mark.parametrize("where", ["datasets", "test_datasets"])
def test_a_relative_path_is_looked_up_under_data_root_too(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "root").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "root" / "rows.jsonl").write_text("{}")
    environ = {f"AXOLOTL_{where.upper()}__0__PATH": "rows.jsonl", "DATA_ROOT": "../root"}
    found = paths.located(load({"AXOLOTL_BASE_MODEL": "a/b", **environ})).axolotl[where]
    assert found.value[0]["path"] == str(tmp_path / "root" / "rows.jsonl")
    (tmp_path / "here" / "rows.jsonl").write_text("{}")
    found = paths.located(load({"AXOLOTL_BASE_MODEL": "a/b", **environ})).axolotl[where]
    assert found.value[0]["path"] == str(tmp_path / "here" / "rows.jsonl")


@pytest.mark.parametrize(
    ("environ", "outputs"),
    [
        ({}, "outputs"),
        ({"CKPT_ROOT": "c"}, "c"),
        ({"CKPT_ROOT": "c", "SFT_OUTPUTS_DIR": "o"}, "o"),
    ],
)
def test_the_runs_go_under_ckpt_root_where_nothing_stronger_says(
    environ: dict[str, str], outputs: str
) -> None:
    assert paths.folders(load(environ).get, environ)[0] == str(Path(outputs).absolute())


def test_a_name_of_the_hub_stays_one_with_a_data_root(tmp_path: Path) -> None:
    found = paths.located(load({**MODEL_AND_DATA, "DATA_ROOT": str(tmp_path)}))
    assert found.axolotl["datasets"].value[0]["path"] == "acme/rows"


def test_the_hubs_caches_lie_in_their_folder_where_nothing_else_is_said() -> None:
    assert paths.caches("/c", {"HF_HUB_CACHE": "/elsewhere"}) == {
        "HF_DATASETS_CACHE": "/c/datasets",
        "HF_XET_CACHE": "/c/xet",
        **(of_torch := {"TORCHINDUCTOR_CACHE_DIR": "/c/inductor", "TRITON_CACHE_DIR": "/c/triton"}),
    }
    assert paths.caches("/c", {"HF_HOME": "/home"}) == of_torch
    assert paths.caches(None, {}) == {}

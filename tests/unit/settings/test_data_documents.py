"""Several descriptions of data as one, and folders that were prepared."""

import json
from pathlib import Path
from typing import Any

import pytest

from envtune.settings import data_documents
from envtune.settings.documents import DocumentError


def write(path: Path, content: Any) -> str:
    path.parent.mkdir(exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_paths_stand_in_a_list_or_between_commas(tmp_path: Path) -> None:
    assert data_documents.named("a, b,") == ["a", "b"]
    assert data_documents.named('["a,b", "c"]') == ["a,b", "c"]
    odd = write(tmp_path / "a,b.json", "{}")
    assert data_documents.named(odd) == [odd]
    with pytest.raises(DocumentError, match="a list of paths"):
        data_documents.named("[1]")


def test_descriptions_that_agree_are_one(tmp_path: Path) -> None:
    base = {"template": "chat", "output_params": {"train_ratio": 0.9}}
    paths = [
        write(tmp_path / f"{n}.json", {"name": n, "_note": n, **base, "datasets": [{"dataset_name": n}]})
        for n in ("a", "b", "c")
    ]  # fmt: skip
    made = data_documents.described(",".join(paths)).values
    assert made == {**base, "datasets": [{"dataset_name": n} for n in ("a", "b", "c")]}
    lone = data_documents.described(paths[0]).values
    assert lone["name"] == "a"


@pytest.mark.parametrize("other", [{"template": "instruct"}, {"quality_filters": {}}, None])
def test_descriptions_that_differ_are_told_with_the_way_out(other: Any, tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", {"template": "chat", "datasets": []})
    second = {"template": "chat", "datasets": [], **(other or {})}
    if other is None:
        del second["template"]
    with pytest.raises(DocumentError, match="name the folders in SFT_DATA_DIRS") as raised:
        data_documents.described(f"{first},{write(tmp_path / 'b.json', second)}")
    assert f"b.json says {next(iter(other or {'template': 0}))} otherwise than" in str(raised.value)


def test_a_description_without_data_sets_is_no_part_of_several(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.json", {"template": "chat"}) for n in "ab"]
    with pytest.raises(DocumentError, match=r"a.json has no list of datasets"):
        data_documents.described(",".join(paths))


STATE = {
    "response_template": "A:",
    "files": [
        {"split": "train", "path": "train.jsonl", "keys": {"type": "alpaca"}},
        {"split": "train", "path": "train-2.jsonl", "keys": {"field": "text"}},
        {"split": "val", "path": "val.jsonl", "keys": {"type": "alpaca"}},
    ],
}


def test_prepared_folders_are_data_sets_and_what_is_held_back(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    write(one / "training_state.json", STATE)
    write(two / "training_state.json", {**STATE, "files": STATE["files"][:1]})
    made = data_documents.prepared(f"{one},{two}").values
    assert made == {
        "datasets": [
            {"path": f"{one}/train.jsonl", "ds_type": "json", "type": "alpaca"},
            {"path": f"{one}/train-2.jsonl", "ds_type": "json", "field": "text"},
            {"path": f"{two}/train.jsonl", "ds_type": "json", "type": "alpaca"},
        ],
        "test_datasets": [{"path": f"{one}/val.jsonl", "ds_type": "json", "type": "alpaca"}],
        "response_template": "A:",
    }


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "is no folder that `envtune prepare` has finished"),
        ("{", "training_state.json cannot be read"),
        ([], "is not what `envtune prepare` writes"),
        ({"files": {}}, "is not what `envtune prepare` writes"),
    ],
)
def test_a_folder_that_is_not_prepared_is_told(content: Any, told: str, tmp_path: Path) -> None:
    if content is not None:
        write(tmp_path / "training_state.json", content)
    with pytest.raises(DocumentError, match=told):
        data_documents.prepared(str(tmp_path))


def test_plain_texts_of_two_marks_are_not_trained_in_one_run(tmp_path: Path) -> None:
    for name, mark in (("one", "A:"), ("two", "B:")):
        write(tmp_path / name / "training_state.json", {**STATE, "response_template": mark})
    with pytest.raises(
        DocumentError, match=r"after different marks, and one run has one: .*'A:'.*'B:'"
    ):
        data_documents.prepared(f"{tmp_path}/one,{tmp_path}/two")


def test_layouts_of_different_templates_are_trained_in_one_run(tmp_path: Path) -> None:
    for mark in ("A:", "B:", "A:"):
        keys = {"input_format": f"{{{{q}}}} {mark} {{{{a}}}}"}
        file = {"split": "train", "path": "train.jsonl", "keys": keys}
        told = {"response_template": mark, "files": [file]}
        write(tmp_path / mark / "training_state.json", told)
    made = data_documents.prepared(f"{tmp_path}/A:,{tmp_path}/B:").values
    assert made["response_template"] == ["A:", "B:"]

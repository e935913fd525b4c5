"""A folder of prepared rows: whole or not there, and nothing of anybody else's lost."""

import json
from pathlib import Path
from typing import Any

import pytest

from envtune.data import folder
from envtune.data.batches import Batch
from envtune.data.folder import NotOursError

A, B = {"type": "alpaca"}, {"type": "completion"}
PARTS = [
    ("train", A, Batch("a", [1, 2], [{"q": 1}, {"q": "é"}])),
    ("val", A, Batch("a", [3], [{"q": 3}])),
    ("train", B, Batch("b", [1], [{"text": "x"}])),
    ("train", dict(A), Batch("a", [4], [{"q": 4}])),
]


def prepare(where: Path, parts: Any = PARTS) -> list[dict[str, Any]]:
    folder.begin(where)
    made = folder.write(where, parts)
    told = [file.plain() for file in made]
    folder.finish(where, made, {"files": told}, "# a card\n")
    return told


def names(where: Path) -> set[str]:
    return {path.name for path in where.iterdir()}


def test_rows_lie_by_split_and_by_how_they_read(tmp_path: Path) -> None:
    told = prepare(tmp_path)
    assert names(tmp_path) == {
        "train.jsonl", "train-2.jsonl", "val.jsonl", "DATA_CARD.md", "training_state.json",
    }  # fmt: skip
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert rows == [{"q": 1}, {"q": "é"}, {"q": 4}]
    assert [(one["path"], one["rows"], one["keys"]) for one in told] == [
        ("train.jsonl", 3, A), ("val.jsonl", 1, A), ("train-2.jsonl", 1, B),
    ]  # fmt: skip
    assert prepare(tmp_path) == told  # the same rows, the same bytes


def test_what_a_killed_one_has_left_goes_with_the_next(tmp_path: Path) -> None:
    folder.begin(tmp_path)
    folder.write(tmp_path, PARTS)  # killed before its end
    assert folder.state(tmp_path) is None
    assert not {"train.jsonl", "training_state.json"} & names(tmp_path)
    prepare(tmp_path, PARTS[2:3])
    assert names(tmp_path) == {"train.jsonl", "DATA_CARD.md", "training_state.json"}


@pytest.mark.parametrize("done", range(3))
def test_one_killed_among_its_last_words_is_not_whole_and_begins_anew(
    done: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    real, calls = Path.replace, []

    def dies(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) > done:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path)
    assert folder.state(tmp_path) is None
    monkeypatch.undo()
    prepare(tmp_path, PARTS[1:2])
    assert names(tmp_path) == {"val.jsonl", "DATA_CARD.md", "training_state.json"}


def test_what_no_preparation_wrote_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("mine\n")
    (tmp_path / "notes.txt").write_text("mine too\n")
    with pytest.raises(NotOursError, match=r"train.jsonl was not written by a preparation"):
        folder.begin(tmp_path)
    assert names(tmp_path) == {"train.jsonl", "notes.txt"}


def test_what_somebody_changed_since_is_kept_beside(tmp_path: Path) -> None:
    prepare(tmp_path)
    (tmp_path / "DATA_CARD.md").write_text("# my words\n")
    (tmp_path / "train.jsonl").write_text('{"q": "mine"}\n')
    (tmp_path / "notes.jsonl").write_text("mine\n")
    prepare(tmp_path, PARTS[:1])
    kept = {path.name: path.read_text() for path in tmp_path.glob("*.kept-1")}
    assert kept == {
        "DATA_CARD.md.kept-1": "# my words\n", "train.jsonl.kept-1": '{"q": "mine"}\n',
    }  # fmt: skip
    assert (tmp_path / "notes.jsonl").exists()
    assert not (tmp_path / "val.jsonl").exists()


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"a": "é\u2028"}, '{"a":"é\u2028"}'),
        ({"a": "\ud800"}, r'{"a":"\ud800"}'),
        ({"a": 10**30}, '{"a":1000000000000000000000000000000}'),
        ({"a": Path("/x")}, '{"a":"/x"}'),
        ({"a": [None, True, 1.5]}, '{"a":[null,true,1.5]}'),
    ],
)
def test_a_row_is_one_line_whatever_it_holds(row: dict[str, Any], text: str) -> None:
    assert folder.line(row).decode() == text + "\n"

"""A folder of prepared rows: whole or not there, and nothing of anybody else's lost."""

import json
import os
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
    with folder.working(where):
        made = folder.write(where, parts)
        told = [file.plain() for file in made]
        folder.finish(where, made, {"asked": {}, "files": told}, "# a card\n")
    return told


def dies(where: Path, done: int, parts: Any = PARTS) -> None:
    """A preparation in a process that ends at its rename number `done`, its rows among them."""
    process = os.fork()
    if not process:
        real, calls = os.replace, []

        def replace(source: Any, target: Any) -> None:
            calls.append(target)
            if len(calls) > done:
                os._exit(9)
            real(source, target)

        os.replace = replace
        Path.replace = lambda self, target: replace(self, target)  # type: ignore[assignment, method-assign, misc, return-value]
        prepare(where, parts)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 9


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


@pytest.mark.parametrize("done", range(5))
@pytest.mark.parametrize("before", [False, True], ids=["new", "over another"])
def test_one_that_was_killed_is_not_whole_and_the_next_comes_to_its_end(
    done: int, before: bool, tmp_path: Path
) -> None:
    if before:
        prepare(tmp_path, PARTS[2:])
    dies(tmp_path, done)
    assert folder.state(tmp_path) is None
    with pytest.raises(ZeroDivisionError), folder.working(tmp_path):
        raise ZeroDivisionError  # one that finds no row left
    assert names(tmp_path) == set()
    dies(tmp_path, done)
    prepare(tmp_path, PARTS[1:2])
    assert names(tmp_path) == {"val.jsonl", "DATA_CARD.md", "training_state.json"}


def test_two_at_once_are_one(tmp_path: Path) -> None:
    with folder.working(tmp_path):
        with pytest.raises(NotOursError, match="is being prepared by another process"):
            prepare(tmp_path)
        made = folder.write(tmp_path, PARTS[:1])
        folder.finish(tmp_path, made, {"asked": {}, "files": []}, "")
    assert "train.jsonl" in names(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"total": 5}'])
def test_the_state_of_another_tool_is_left_alone(text: str, tmp_path: Path) -> None:
    (tmp_path / "training_state.json").write_text(text)
    with pytest.raises(NotOursError, match=r"training_state\.json was not written"):
        prepare(tmp_path)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"training_state.json": text}


def test_what_no_preparation_wrote_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("mine\n")
    (tmp_path / "notes.txt").write_text("mine too\n")
    with pytest.raises(NotOursError, match=r"train\.jsonl was not written by a preparation"):
        prepare(tmp_path)
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

"""What a training learns of its rows, counted and shown."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from envtune.engine import learned

END = 2


class Letters:
    """A tokenizer whose ids are letters."""

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join(chr(96 + i) for i in ids)


def made(rows: list[list[int]]) -> Dataset:
    """Rows of labels; the ids are 1, 2, 3 and so on."""
    return Dataset.from_list([{"input_ids": [*range(1, len(r) + 1)], "labels": r} for r in rows])


def naive(rows: list[list[int]]) -> learned.Counts:
    on = [[label for label in row[1:] if label != -100] for row in rows]
    return learned.Counts(
        rows=len(rows),
        tokens=sum(map(len, rows)),
        learned=sum(map(len, on)),
        unlearned=sum(not row for row in on),
        endless=sum(bool(row) and END not in row for row in on),
        longest=max(map(len, rows)),
    )


def test_the_counts_are_those_of_a_loop_over_the_rows(dice: random.Random) -> None:
    for _ in range(30):
        rows = [
            [dice.choice([-100, -100, 1, END, 7]) for _ in range(dice.randrange(0, 6))]
            for _ in range(dice.randrange(1, 40))
        ]
        assert learned.count(made([*rows, [5]]), [END]) == naive([*rows, [5]])


def test_a_shuffled_part_is_counted_as_itself(dice: random.Random) -> None:
    rows = [[-100] * dice.randrange(1, 4) + [END] * dice.randrange(0, 3) for _ in range(60)]
    part = made(rows).shuffle(seed=dice.randrange(99)).select(range(5, 30))
    assert learned.count(part, [END]) == naive(part["labels"])


@pytest.mark.parametrize("labels", [[-100, -100], [5, -100], [5]])
def test_rows_of_which_nothing_is_learned_end_the_run(tmp_path: Path, labels: list[int]) -> None:
    """The first token is learned by nobody: nothing stands before it."""
    (tmp_path / "data").mkdir()
    with pytest.raises(learned.NothingToLearn, match="of 2 rows no token is learned"):
        learned.tell(made([labels, labels]), Letters(), [END], tmp_path)
    assert json.loads((tmp_path / "data/sample.json").read_text())["counts"]["unlearned"] == 2


def test_a_row_is_shown_with_its_mask(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    learned.tell(made([[-100, -100, 3, 4, -100]]), Letters(), [END], tmp_path)
    told = json.loads((tmp_path / "data/sample.json").read_text())
    assert told["samples"] == [[["ab", False], ["cd", True], ["e", False]]]
    assert told["counts"]["endless"] == 1


def test_preferences_and_streams_are_not_told(tmp_path: Path) -> None:
    pairs = Dataset.from_list([{"chosen": "a", "rejected": "b"}])
    for rows in (pairs, made([[1, 2]]).to_iterable_dataset(), None):
        learned.tell(rows, Letters(), [END], tmp_path)
    assert not list(tmp_path.iterdir())

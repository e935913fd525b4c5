"""Which rows a batch holds."""

from types import SimpleNamespace

import torch
from datasets import Dataset

from envtune.engine import batches

ROWS = [[5, 6, 7], [5, 6], [8, 9, 10, 11], [5, 6, 7], [1]]
TRAINER = SimpleNamespace(train_dataset=Dataset.from_dict({"input_ids": ROWS, "labels": ROWS}))


def test_padded_rows_are_told_by_their_numbers() -> None:
    inputs = {
        "input_ids": torch.tensor([[8, 9, 10, 11], [5, 6, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
    }
    told = batches.described(TRAINER, inputs)
    assert told == "2 rows of 4 tokens: of the prepared rows 1, 2 (from 0)"


def test_packed_documents_are_told_by_their_numbers() -> None:
    inputs = {
        "input_ids": torch.tensor([[5, 6, 7, 1, 5, 6]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 0, 1]]),
    }
    told = batches.described(TRAINER, inputs)
    assert told == "1 rows of 6 tokens: of the prepared rows 0, 1, 3, 4 (from 0)"


def test_what_cannot_be_looked_up_is_told_by_its_shape() -> None:
    inputs = {"input_ids": torch.tensor([[4, 4]])}
    assert batches.described(TRAINER, inputs) == "1 rows of 2 tokens"
    stream = SimpleNamespace(train_dataset=iter(ROWS))
    assert batches.described(stream, inputs) == "1 rows of 2 tokens"
    assert batches.described(TRAINER, {"prompt_input_ids": None}) == "its rows"
    assert batches.described(TRAINER, [1]) == "its rows"

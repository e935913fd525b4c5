"""Which files of a repository are the rows of a split, by names as the Hub has them."""

import pytest

from envtune.transfer import datafiles

CASES: list[tuple[list[str], str, str, list[str]]] = [
    (["data/train-00000-of-00001-a09b7.parquet", "README.md"], "train", "",
     ["data/train-00000-of-00001-a09b7.parquet"]),
    (["train.jsonl", "test.jsonl", "validation.jsonl"], "train", "", ["train.jsonl"]),
    (["train.jsonl", "dev.jsonl"], "validation", "", ["dev.jsonl"]),
    (["alpaca_data_cleaned.json", "dataset_infos.json"], "train", "", ["alpaca_data_cleaned.json"]),
    (["databricks-dolly-15k.jsonl", "test.csv"], "train", "", ["databricks-dolly-15k.jsonl"]),
    (["rows.jsonl"], "test", "", []),
    (["train/b.csv", "train/a.csv", "test/a.csv"], "train", "", ["train/a.csv", "train/b.csv"]),
    (["en/train.parquet", "fr/train.parquet"], "train", "fr", ["fr/train.parquet"]),
    (["en/train.parquet", "fr/train.parquet"], "train", "it", []),
    (["train.jsonl.gz", "train.txt", "code.py"], "train", "", ["train.jsonl.gz"]),
    (["data/train_sft-0.parquet", "data/test_sft-0.parquet"], "train_sft", "",
     ["data/train_sft-0.parquet"]),
    (["trainer.json", "contest.json"], "train", "", ["contest.json", "trainer.json"]),
    ([], "train", "", []),
]  # fmt: skip


@pytest.mark.parametrize(("names", "split", "subset", "found"), CASES)
def test_the_files_of_a_split(names: list[str], split: str, subset: str, found: list[str]) -> None:
    assert datafiles.of_split(names, split, subset) == found

"""Addresses of data: which are fetched, what is shown of them, and what is wrong with them."""

from typing import Any

import pytest

from envtune.transfer import addresses, remote
from tests.unit.builders import MODEL_AND_DATA, load

Item = dict[str, Any]
OF: list[tuple[Item, tuple[str, ...]]] = [
    ({"path": "s3://b/x.jsonl"}, ("s3://b/x.jsonl",)),
    ({"path": "acme/rows"}, ()),
    ({"path": "/rows", "data_files": ["a.jsonl"]}, ()),
    ({"path": "gs://b/p/", "data_files": ["a.csv", "s3://c/d.csv"]}, ("gs://b/p/a.csv", "s3://c/d.csv")),
    ({"path": "json", "data_files": "https://h/x.json"}, ("https://h/x.json",)),
    ({"path": "S3://b/x.jsonl"}, ("S3://b/x.jsonl",)),
    ({"path": "ftp://h/x.jsonl"}, ()),
    ({}, ()),
]  # fmt: skip


@pytest.mark.parametrize(("item", "found"), OF)
def test_where_the_rows_of_a_data_set_lie(item: Item, found: tuple[str, ...]) -> None:
    assert addresses.of(item) == found


SHOWN = [
    ("https://ada:s3cretword@h:8/x.jsonl?X-Amz-Signature=abc", "https://h:8/x.jsonl"),
    ("https://h/x.jsonl?id=5", "https://h/x.jsonl"),
    ("s3://b/x?.jsonl", "s3://b/x?.jsonl"),
    ("abfss://box@account.dfs.core.windows.net/x", "abfss://box@account.dfs.core.windows.net/x"),
]


@pytest.mark.parametrize(("url", "shown"), SHOWN)
def test_what_is_shown_of_an_address(url: str, shown: str) -> None:
    assert addresses.shown(url) == shown


def test_an_address_that_is_signed_anew_is_the_same_and_one_that_asks_for_another_file_is_not() -> (
    None
):
    first, second = ("https://h/x?X-Amz-Signature=abc", "https://h/x?X-Amz-Signature=def")
    assert addresses.identity(first) == addresses.identity(second)
    assert addresses.identity("https://h/x?id=1") != addresses.identity("https://h/x?id=2")


WRONG: list[tuple[Item, str, str]] = [
    ({"path": "ftp://h/x"}, "path", "ftp://h/x cannot be fetched; allowed: s3://, gs://"),
    ({"path": "hf://datasets/acme/x"}, "path", "write org/name alone"),
    ({"path": "s3:///x"}, "path", "names no bucket"),
    ({"path": "/rows", "data_files": ["a.jsonl", "s3://b/c.jsonl"]}, "data_files", "in part here"),
    ({"path": "s3://b/x", "name": "https://u:password1@h/"}, "", "holds a URL with a user"),
]


@pytest.mark.parametrize(("item", "key", "line"), WRONG)
def test_what_is_wrong_is_told_without_a_network(item: Item, key: str, line: str) -> None:
    ((where, told),) = addresses.refusals(item)
    assert where == key
    assert line in told


@pytest.mark.parametrize(("item", "_found"), OF[:6])
def test_what_is_right_is_not_refused(item: Item, _found: tuple[str, ...]) -> None:
    assert list(addresses.refusals(item)) == []


def test_settings_that_are_looked_at_hold_no_key() -> None:
    text = '[{"path": "https://me:plantplant@host/rows", "type": "alpaca"}]'
    far = remote.unfetched(load({**MODEL_AND_DATA, "AXOLOTL_DATASETS": text}))
    assert far is not None
    assert far.axolotl["datasets"].value == [{"path": "https://host/rows", "type": "alpaca"}]

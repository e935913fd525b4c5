"""Rows of a local file with the place of each, and one line for what cannot be read."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from envtune.data import local
from envtune.data.batches import BadRow
from envtune.resolve.facts import file_type

TWO = [{"q": "a", "n": "1"}, {"q": "b\nc", "n": "é"}]
LINES = "".join(json.dumps(row) + "\n" for row in TWO)

GOOD: list[tuple[str, str, list[int]]] = [
    ("a.jsonl", LINES, [1, 2]),
    ("a.jsonl", "\n\ufeff".join(["", LINES]).lstrip("\n"), [1, 2]),
    ("a.jsonl", LINES.replace("\n", "\r\n\r\n"), [1, 3]),
    ("a.json", LINES, [1, 2]),
    ("a.json", f"\n {json.dumps(TWO, indent=1)}", [1, 2]),
    ("a.csv", 'q,n\na,1\n"b\nc",é\n', [2, 3]),
    ("a.csv", 'q;n\r\na;1\r\n\r\n"b\nc";é\r\n', [2, 4]),
    ("a.tsv", 'q\tn\na\t1\n"b\nc"\té\n', [2, 3]),
]


def read(path: Path, size: int = 4000) -> list[tuple[int, Any]]:
    made = local.batches(str(path), file_type(str(path)), size)
    return [pair for batch in made for pair in zip(batch.places, batch.rows, strict=True)]


@pytest.mark.parametrize(("name", "text", "places"), GOOD)
@pytest.mark.parametrize("size", [1, 4000])
def test_each_format(name: str, text: str, places: list[int], size: int, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, newline="")
    assert read(tmp_path / name, size) == list(zip(places, TWO, strict=True))


def test_tables(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(TWO)
    pq.write_table(table, tmp_path / "a.parquet")
    for name, new in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        with new(tmp_path / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    for name in ("a.parquet", "file.arrow", "stream.arrow"):
        assert read(tmp_path / name) == [(1, TWO[0]), (2, TWO[1])]


BAD: list[tuple[str, bytes, str]] = [
    ("a.jsonl", b'{"q": 1}\n{"q": \n', "a.jsonl:2: is not JSON"),
    ("a.jsonl", b'{"q": 1}\n[1]\n', "a.jsonl:2: holds [1] and no object"),
    ("a.jsonl", b'{"q": 1}\nnull\n', "a.jsonl:2: holds null"),
    ("a.jsonl", b"[" * 100_000, "a.jsonl: is not JSON"),
    ("a.jsonl", b'{"q": "\xff"}\n', "a.jsonl: is not UTF-8"),
    ("a.jsonl", '{"q": 1}'.encode("utf-16"), "a.jsonl: is not UTF-8"),
    ("a.json", b'[{"q": 1}, 5]', "a.json:2: holds 5"),
    ("a.json", b'[{"q": 1},\n{"q"]', "a.json: is not JSON at line 2"),
    ("a.csv", b"q,n\na\n", "a.csv:2: has 1 values for 2 columns"),
    ("a.csv", b"q,q\na,b\n", "a.csv:1: has the column 'q' twice"),
    ("a.csv", b'q,n\n"a"b,c\n', "a.csv:2: is no CSV"),
    ("a.csv", b'q,n\n"a,c\n', "is no CSV"),
    ("a.parquet", b"PAR1 and more that is none", "a.parquet: cannot be read as parquet after row 0"),
    ("a.arrow", b"nothing of the kind", "a.arrow: cannot be read as arrow after row 0"),
    ("a.xlsx", b"PK", "a.xlsx: is no JSON, JSON lines, CSV"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "told"), BAD)
def test_what_cannot_be_read_is_one_line(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadRow) as raised:
        read(tmp_path / name)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)

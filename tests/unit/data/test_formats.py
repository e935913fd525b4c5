"""Rows of every format with the place of each, and one line for what cannot be read."""

import gzip
import json
import os
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from envtune.data.batches import BadRow
from envtune.data.reading import formats

ONE = {"instruction": "a", "output": "b"}
LINE = json.dumps(ONE) + "\n"
LIST = json.dumps([ONE] * 3)

GOOD: list[tuple[str, str, list[int]]] = [
    ("a.jsonl", LINE * 3, [1, 2, 3]),
    ("a.ndjson", LINE, [1]),
    ("a.jsonl", LINE.strip(), [1]),
    ("a.jsonl", LINE.replace("\n", "\r\n") * 2, [1, 2]),
    ("a.jsonl", f"{LINE}\n  \n{LINE}", [1, 4]),
    ("a.jsonl", f"\ufeff{LINE}", [1]),
    ("a.jsonl", '{"instruction": "a", "output": "b", "n": NaN}\n', [1]),
    ("a.json", LIST, [1, 1, 1]),
    ("a.json", f"\ufeff \n{LIST}\n", [2, 2, 2]),
    ("a.json", json.dumps([ONE] * 3, indent=2), [2, 6, 10]),
    ("a.json", json.dumps(ONE, indent=2), [1]),
    ("a.json", "[]", []),
    ("a.jsonl", json.dumps(ONE, indent=1) + "\n" + json.dumps(ONE, indent=1), [1, 5]),
    ("a.csv", 'instruction,output\na,b\n"x\ny",b\nc,b\n', [2, 3, 5]),
    ("a.csv", '"instruc\ntion",output\na,b\n', [3]),
    ("a.jsonl", '{"a": "says \\": \\" twice", "b": {"a": "\\": "}}\n', [1]),
    ("a.csv", "instruction;output\r\na;b\r\n\r\na;b\r\n", [2, 4]),
    ("a.tsv", "instruction\toutput\na, or b\tb\n", [2]),
    ("a.txt", "one\ntwo\n", [1, 2]),
    ("a.jsonl", "", []),
]

BAD: list[tuple[str, bytes, str]] = [
    (
        "a.jsonl",
        LINE.encode() + b'{"instruction": }\n',
        ":2: not JSON: Expecting value at column 17",
    ),
    ("a.jsonl", LINE.encode() + b'{"instruction": "a', ":2: not JSON: Unterminated string"),
    (
        "a.jsonl",
        LINE.encode() + b'{"instruction": "a"',
        ":2: not JSON: Expecting ',' delimiter at column 20: the line is cut off",
    ),
    (
        "a.jsonl",
        b"{'instruction': 'a'}\n",
        ":1: not JSON: Expecting property name enclosed in double quotes",
    ),
    ("a.jsonl", b"{'instruction': 'a'}\n", "names and texts need double quotes"),
    (
        "a.jsonl",
        LINE.strip().encode() + LINE.encode(),
        ":1: not JSON: Extra data at column 36; one object a line",
    ),
    ("a.jsonl", b'{"a": 1,\n' + LINE.encode(), ":1: not JSON"),
    ("a.jsonl", b'{"a": 1, "a": 2}\n', ":1: has a twice"),
    ("a.jsonl", b'{"a": "\\ud800"}\n', ":1: holds half of a character"),
    ("a.jsonl", b'["a"]\n', ":1: is a text, and a row is an object"),
    ("a.jsonl", b"5\n", ":1: is a value, and a row is an object"),
    ("a.jsonl", b"null\n", ":1: is null, and a row is an object"),
    ("a.jsonl", LINE.encode() + b'"text"\n', ":2: is a text"),
    ("a.jsonl", b'{"a":' * 100_000, ":1: is nested too deeply"),
    ("a.json", b"[" * 100_000, ":1:"),
    ("a.jsonl", '{"a": "é"}\n'.encode("latin-1"), ":1: not UTF-8 at byte 7 of the file"),
    ("a.jsonl", LINE.encode() + b'{"a": "\xff"}\n', ":2: not UTF-8 at byte"),
    ("a.json", b'[{"a": "\xff"}]', ":1: not UTF-8 at byte 8"),
    ("a.jsonl", LINE.encode("utf-16"), ":1: is UTF-16 from byte 0"),
    ("a.jsonl", LINE.encode("utf-32"), ":1: is UTF-32 from byte 0"),
    ("a.csv", "a,b\n1,2\n".encode("utf-16"), ":1: is UTF-16"),
    ("a.json", b'[{"a": 1},\n{"a": }]', ":2: not JSON: Expecting value at column 7"),
    ("a.json", b'[{"a": 1},\n', "the list has no end"),
    ("a.json", b'[{"a": 1}] and more', "something follows the list's end"),
    ("a.json", b'[{"a": 1}, 5]', ":1: is a value"),
    ("a.json", b"[[1]]", ":1: is a list"),
    ("a.csv", b"a,a\n1,2\n", ":1: has the column a twice"),
    ("a.csv", b"a,b\n1\n", ":2: has 1 values for 2 columns (a, b)"),
    ("a.csv", b"a,b\n1,2\n1,2,3\n", ":3: has 3 values for 2 columns"),
    ("a.csv", b'a,b\n"1,2\n', "not CSV: unexpected end of data"),
    ("a.csv", b'a,b\n"a"b,c\n', "not CSV"),
    (
        "a.csv",
        b"a,b\n" + b"1,2\n" * 5000 + b"\xff,1\n",
        ":5002: not UTF-8 at byte 20004 of the file",
    ),
    ("a.jsonl", b'{"n": ' + b"1" * 5000 + b"}\n", ":1: holds a number of more digits"),
    ("a.json", b'[{"n": ' + b"1" * 5000 + b"}]", ":1: holds a number of more digits"),
    ("a.json", b'[{"a": 1}{"a": 2}]', ":1: not JSON: a comma is missing"),
    ("a.json", b'[{"a": 1},\n,{"a": 2}]', ":2: not JSON: a comma too many"),
    ("a.json", b'[{"a": 1},]', ":1: not JSON: a comma too many"),
    ("a.json", b'[,{"a": 1}]', ":1: not JSON: Expecting value"),
    ("a.jsonl", b'{"m": [{"role": "a", "role": "b"}]}\n', ":1: has role twice"),
    ("a.jsonl", b'{"\\u0061": 1, "a": 2}\n', ":1: has a twice"),
    ("a.json", b'[{"m": {"x" : 1, "x": 2}}]', ":1: has x twice"),
    ("a.jsonl", b'{"a": "x\x01"}\n', ":1: not JSON: Invalid control character at column 9"),
    (
        "a.jsonl.gz",
        gzip.compress(b"\n" * 1_000_002, mtime=0),
        ":1000001: 1,000,000 lines before it are empty",
    ),
    ("a.csv", b"\n", ":1: has no line of column names"),
    ("a.csv", b"a,b\n\xff,1\n", ":2: not UTF-8 at byte 4 of the file"),
    ("a.parquet", b"PAR1 and more that is none", "is no Parquet, or damaged"),
    ("a.parquet", b"", "is no Parquet, or damaged"),
    ("a.arrow", b"nothing of the kind", "is no Arrow, or damaged"),
    ("a.arrow", b"", "is no Arrow, or damaged"),
    ("a.xlsx", b"PK\3\4", "its name (.xlsx) tells no rows; save it as CSV"),
    ("a.jsonl", b"PK\3\4", "a ZIP archive, as a workbook (.xlsx) is"),
    ("a.jsonl", b"PAR1", "is Parquet: give it the name .parquet"),
    ("a.jsonl", gzip.compress(b"{}", mtime=0), "give it a name that ends in .gz"),
    ("a.jsonl", b"%PDF-1.4", "is a PDF"),
    ("a.pkl", b"x", "its name (.pkl) tells no rows"),
    ("a", b"{}", "its name (no suffix) tells no rows"),
    ("a.jsonl.gz", gzip.compress(LINE.encode() * 300, mtime=0)[:-10], "is damaged, or cut off"),
    ("a.jsonl.gz", b"\x1f\x8b and no more", "is damaged, or cut off"),
    ("a.jsonl.gz", LINE.encode(), "is damaged, or cut off"),
    ("a.jsonl.zst", zstandard.compress(LINE.encode())[:-3], "is damaged, or cut off"),
    ("a.parquet.gz", gzip.compress(b"PAR1", mtime=0), "is packed parquet"),
    ("a.txt", b"ok\n\xff\n", ":2: not UTF-8"),
]


def read(path: Path, size: int = 4000) -> list[tuple[int, Any]]:
    made = formats.batches(str(path), size=size)
    return [pair for batch in made for pair in zip(batch.places, batch.rows, strict=True)]


@pytest.mark.parametrize(("name", "text", "places"), GOOD)
@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
def test_each_format(name: str, text: str, places: list[int], packing: str, tmp_path: Path) -> None:
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[packing]
    path = tmp_path / (name + packing)
    path.write_bytes(pack(text.encode()))
    for size in (1, 4000):
        assert [place for place, _ in read(path, size)] == places


def test_tables_and_folders(tmp_path: Path) -> None:
    table = pa.Table.from_pylist([ONE, ONE])
    pq.write_table(table, tmp_path / "a.parquet")
    for name, new in (("file", pa.ipc.new_file), ("stream", pa.ipc.new_stream)):
        with new(tmp_path / f"{name}.arrow", table.schema) as writer:
            writer.write_table(table)
    for name in ("a.parquet", "file.arrow", "stream.arrow"):
        assert read(tmp_path / name) == [(1, ONE), (2, ONE)]
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "b.jsonl").write_text(LINE)
    (tmp_path / ".hidden.jsonl").write_text("no row")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert len(read(tmp_path)) == 7
    assert len(read(tmp_path / "*.arrow")) == 4
    with pytest.raises(OSError):
        read(tmp_path / "*.csv")


@pytest.mark.parametrize(("name", "content", "told"), BAD)
def test_what_cannot_be_read_is_one_line(
    name: str, content: bytes, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadRow) as raised:
        read(tmp_path / name)
    assert told in str(raised.value)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 400 + len(str(tmp_path))


def test_a_line_that_is_no_row_can_be_left_out_and_the_rest_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{LINE}no row\n{LINE}5\n{LINE}")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n1\n3,4\n")
    for name, places, lost in (("a.jsonl", (1, 3, 5), (2, 4)), ("a.csv", (2, 4), (3,))):
        bad: list[BadRow] = []
        (batch,) = formats.batches(str(tmp_path / name), tell=bad.append)
        assert tuple(batch.places) == places
        assert [b.where for b in bad] == [f"{tmp_path / name}:{line}" for line in lost]


def test_what_has_no_end_costs_little_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "long.jsonl").write_bytes(b'{"a": "' + b"x" * (200 << 20) + b'"}\n')
    with gzip.open(tmp_path / "bomb.jsonl.gz", "wb", compresslevel=1) as stream:
        for _ in range(200):
            stream.write(b"x" * (1 << 20))
    for name in ("long.jsonl", "bomb.jsonl.gz"):
        with pytest.raises(BadRow, match=":1: is longer than 64 MiB"):
            read(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 420 << 10


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").symlink_to("/dev/zero")
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        with pytest.raises(OSError):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("odd", "told"),
    [
        ('{"a": "x", "a": "y"}', "has a twice"),
        ('{"a": "x", "a" : "y"}', "has a twice"),
        ('{"a"\t:"x"}\n{"a": "x", "a": "y"}', "has a twice"),
        ('{"a": [{}\n{}]}', "not JSON"),
        ("[1]", "is a list"),
    ],
)
def test_what_is_wrong_among_many_rows_is_found_at_its_line(
    tmp_path: Path, odd: str, told: str
) -> None:
    path = tmp_path / "a.jsonl"
    before, after = '{"a": "x \\" : y"}\n' * 30_000, '{"a": "x"}\n' * 30_000
    path.write_text(f"{before}{odd}\n{after}")
    bad: list[BadRow] = []
    places = [n for batch in formats.batches(str(path), tell=bad.append) for n in batch.places]
    first = 30_000 + odd.count("}\n{" + '"') + 1
    assert f":{first}: {told}" in str(bad[0])
    assert sorted([*places, *(int(one.where.rsplit(":", 1)[1]) for one in bad)]) == list(
        range(1, 60_001 + odd.count("\n") + 1)
    )

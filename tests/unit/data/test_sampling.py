"""Rows beyond a file's head, at which a check looks here and there."""

import gzip
import json
from pathlib import Path

import pytest

from envtune.data import sets
from envtune.data.reading import sampling
from envtune.data.verdicts import Verdict

GOOD = json.dumps({"instruction": "say", "output": "word " * 20}) + "\n"
BAD = json.dumps({"instruction": "say", "output": None, "input": 7}) + "\n"
ITEM = {"type": "alpaca", "ds_type": "json"}


def looked(path: Path, **keys: str) -> list[str]:
    verdict = Verdict()
    verdict.sample(sets.of({"path": str(path), **ITEM, **keys}, [str(path)], untyped=False), 10.0)
    return list(verdict.lines())


def test_a_second_half_of_another_shape_is_seen_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD * 3000 + BAD * 3000)
    lines = looked(path)
    assert lines == looked(path)
    for line in lines[:-1]:
        where, _, what = line.partition(": ")
        number = int(where.rpartition(":")[2])
        assert number > 3000
        assert path.read_text().splitlines()[number - 1] + "\n" == BAD
        assert what == "input is a number, 7, and no text"


@pytest.mark.parametrize("text", ["{broken\n", "\xff\n", "[1]\n"])
def test_lines_that_are_no_rows_are_seen(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.encode() * 2000 + text.encode("latin-1") * 200_000)
    assert len(looked(path)) > 3


def test_a_list_a_packed_file_and_a_long_line_are_passed_over(tmp_path: Path) -> None:
    rows = [json.loads(GOOD)] * 5000
    (tmp_path / "list.json").write_text(json.dumps(rows))
    (tmp_path / "spread.json").write_text("\n".join(json.dumps(row, indent=1) for row in rows))
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress((GOOD * 5000).encode(), mtime=0))
    (tmp_path / "long.jsonl").write_text(GOOD + json.dumps({"instruction": "x" * 5_000_000}))
    (tmp_path / "rows.csv").write_text("instruction,output\n" + "a,b\n" * 50_000)
    for path in tmp_path.iterdir():
        assert not list(sampling.lines(str(path)))


def test_of_a_file_of_many_gigabytes_the_byte_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with path.open("wb") as stream:
        stream.write(GOOD.encode())
        stream.truncate(5 << 30)
    assert sampling.number(str(path), 4 << 30) == "byte 4294967296"

"""Rows that people bring, each by a real start: told in one line before torch is imported, or
prepared to be trained.

A start that goes on is stopped once its rows are prepared. Without DRILL=1 a seed takes some.
"""

import gzip
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness import SHARED, Entrypoint

CASES = SHARED / "cases"
DRILL = bool(os.environ.get("DRILL"))
# How many of each table are started without a drill.
_SOME = 6
_PREPARED = "prepare: made in"

# The file of a case, and words of the line that ends the start; of the rows it prepares.
REFUSED = {
    "data/null_turn.jsonl": ":5: messages[1].content is null",
    "data/sharegpt_chatgpt.jsonl": '[1] has the role "chatgpt"; known are',
    "data/mixed_types.jsonl": ":2: output is a number, 1, and no text",
    "data/too_long.jsonl": "12 have more than the 192 tokens of AXOLOTL_SEQUENCE_LEN; raise it",
    "data/bad_line.jsonl": ":26: not JSON",
    "data/missing_col.jsonl": ":26: its columns (instruction) do not tell how it reads",
    "data/alpaca_wrapped.json": "holds its rows under data; save that list alone",
    "chats/latin1.jsonl": ":1: not UTF-8 at byte 45",
    "chats/utf16.jsonl": "is UTF-16 from byte 0; save it as UTF-8",
    "chats/one_null_answer.jsonl": ":31: messages[2].content is null",
    "chats/one_no_messages.jsonl": ":31: messages is an empty list",
    "chats/one_single_quotes.jsonl": ":31: not JSON",
    "chats/one_wrong_role.jsonl": ':31: messages[2] has the role "bot"',
    "pipelines/bad.jsonl": ":2: not JSON",
    "pipelines/miss.jsonl": ":2: its columns (prompt) do not tell how it reads",
}
TAKEN = {
    "data/bom.jsonl": "12 rows",
    "data/mixed.jsonl": "30 rows",
    "data/no_assistant.jsonl": "nothing is learned from 4 rows: no answer in it, the first at",
    "data/empty_out.jsonl": "an empty answer, the first at",
    "data/long_rows.jsonl": "1 rows are longer than AXOLOTL_SEQUENCE_LEN",
    "data/qa.csv": "12 rows",
    "data/rows.csv": "30 rows",
    "data/alpaca.csv": "12 rows",
    "data/alpaca.parquet": "12 rows",
    "chats/bom.jsonl": "60 rows",
    "chats/chats_crlf.jsonl": "294 rows",
    "chats/one_empty_answer.jsonl": "the first at",
    "chats/one_no_answer_turn.jsonl": "no answer in it, the first at",
    "chats/one_sharegpt_row.jsonl": "60 rows",
    "pipelines/mixed15.jsonl": "15 rows",
    "pipelines/mixed.jsonl": "3 rows",
    "pipelines/mixed_rev.jsonl": "10 rows",
}

ROWS = [{"question": f"What is {n}?", "answer": f"It is {n}."} for n in range(40)]
TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
PAGE = b"\n<!DOCTYPE html>\n<html><body>not found</body></html>\n"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def lines(rows: list[Any], last: str = "") -> bytes:
    return ("".join(json.dumps(row) + "\n" for row in rows) + last).encode()


MANY = [ROWS[0]] * 5000
# A name, the bytes, the type if one is said, and words of the line.
OWN: dict[str, tuple[bytes, str, str]] = {
    "pointer.jsonl": (POINTER, "", "is a pointer of Git LFS"),
    "pointer.parquet": (POINTER, "", "is a pointer of Git LFS"),
    "pointer.jsonl.gz": (POINTER, "", "is a pointer of Git LFS"),
    "pointer.csv": (POINTER, "", "is a pointer of Git LFS"),
    "page.jsonl": (PAGE, "", "is a page (HTML or XML)"),
    "page.csv": (PAGE, "", "is a page (HTML or XML)"),
    "page.parquet": (PAGE, "", "is a page (HTML or XML)"),
    "unmarked.jsonl": (lines(ROWS).decode().encode("utf-16-le"), "", "without a byte order mark"),
    "other_end.csv": ("question,answer\na,b\n".encode("utf-16-be"), "", "without a byte order"),
    "marked.csv": ("question,answer\na,b\n".encode("utf-16"), "", "is UTF-16 from byte 0"),
    "packed.jsonl.gz": (gzip.compress("a,b\n".encode("utf-16-le")), "", "is UTF-16 without"),
    "unmarked.txt": ("ab\ncd\n".encode("utf-16-le"), "completion", "is UTF-16 without"),
    "zeros.jsonl": (bytes(4096), "", "begins with zero bytes"),
    "wrapped.json": (json.dumps({"data": ROWS}).encode(), "", "holds its rows under data"),
    "splits.json": (
        json.dumps({"train": ROWS, "test": ROWS}, indent=1).encode(), "alpaca_chat.load_qa",
        "holds its rows under train",
    ),
    "row_5001.jsonl": (lines(MANY, "no row\n"), "", ":5001: not JSON"),
    "cut.jsonl": (lines(ROWS)[:-9], "", ":40: not JSON: Unterminated string"),
    "cut.jsonl.gz": (gzip.compress(lines(ROWS))[:-9], "", "is damaged, or cut off"),
    "last.jsonl.gz": (
        gzip.compress(lines([{"messages": TURNS}] * 3, '{"messages": null}\n')), "",
        ":4: messages is null",
    ),
    "short.csv": (b"question,answer\n" + b"a,b\n" * 4998 + b"a\n", "", ":5000: has 1 values"),
    "null.jsonl": (lines([{"text": "a"}], '{"text": null}'), "completion", ":2: text is null"),
    "label.jsonl": (
        lines([{"segments": [{"text": "b"}]}]), "input_output", ":1: segments[0] is no object",
    ),
    "context.jsonl": (lines(ROWS), "context_qa", ":1: has no column article"),
    "list.jsonl": (
        lines(ROWS, '{"question": "a", "answer": ["b"]}'), "alpaca_chat.load_qa",
        ":41: answer is a list",
    ),
}  # fmt: skip


@pytest.fixture
def start(tmp_path: Path, settings: dict[str, str]) -> Callable[..., tuple[int, str]]:
    """Starts on a file: the code, or 0 where its rows are prepared, and what was said."""

    def started(path: Path, kind: str = "") -> tuple[int, str]:
        said = {"AXOLOTL_DATASETS__0__TYPE": kind} if kind else {}
        own = {"AXOLOTL_SEQUENCE_LEN": "192", "XDG_CACHE_HOME": str(tmp_path / "cache")}
        begun = Entrypoint(tmp_path, {**settings, **own}).start(
            **{"AXOLOTL_DATASETS__0__PATH": str(path), **said}
        )
        while begun.process.poll() is None and _PREPARED not in begun.err:
            time.sleep(0.02)
        if prepared := _PREPARED in begun.err:
            begun.signal()
        ended = begun.wait()
        assert "loading the libraries" not in ended.err or prepared
        return 0 if prepared else ended.code, ended.err

    return started


def some(names: list[str], seed: int) -> list[str]:
    return names if DRILL else random.Random(seed).sample(names, _SOME)


@pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not beside the checkout")
def test_rows_that_were_brought_are_told_or_taken(
    start: Callable[..., tuple[int, str]], seed: int
) -> None:
    print(f"seed {seed}")
    wrong = []
    for name in some([*REFUSED, *TAKEN], seed):
        code, said = start(CASES / name)
        expected = (3, REFUSED[name]) if name in REFUSED else (0, TAKEN[name])
        if code != expected[0] or expected[1] not in said:
            wrong.append((name, code, said[-600:]))
    assert not wrong


def test_files_of_other_forms_are_told_by_what_they_are(
    start: Callable[..., tuple[int, str]], tmp_path: Path, seed: int
) -> None:
    print(f"seed {seed}")
    wrong = []
    for name in some(list(OWN), seed):
        content, kind, words = OWN[name]
        (tmp_path / name).write_bytes(content)
        code, said = start(tmp_path / name, kind)
        if code != 3 or words not in said or name not in said:
            wrong.append((name, code, said[-600:]))
    assert not wrong

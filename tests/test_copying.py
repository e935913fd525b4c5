"""How data and models come to a volume: by `envtune copy`, from a real server of S3's protocol."""

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
import pytest

from envtune.errors import Exit
from envtune.reference import claims
from tests.harness import NOWHERE, clean_environ, contents

Put = Callable[[Mapping[str, bytes]], str]


@pytest.fixture
def put(s3: dict[str, str], request: pytest.FixtureRequest) -> Put:
    """Puts objects below a prefix of this test's, and says where that is."""
    store: Any = boto3.client(
        "s3", endpoint_url=s3["AWS_ENDPOINT_URL"], region_name=s3["AWS_DEFAULT_REGION"],
        aws_access_key_id=s3["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip

    def write(objects: Mapping[str, bytes]) -> str:
        for name, held in objects.items():
            store.put_object(Bucket="bucket", Key=f"{request.node.name}/{name}", Body=held)
        return f"s3://bucket/{request.node.name}"

    return write


@pytest.fixture
def copy(s3: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The command, into a folder `to` unless it is told otherwise."""

    def run(url: str, to: str = "to", *wrap: str, **more: str) -> subprocess.CompletedProcess[str]:
        command = [*wrap, sys.executable, "-m", "envtune", "copy", url, to]
        environ = clean_environ(**{**s3, **more})
        return subprocess.run(
            command, check=False, env=environ, cwd=tmp_path, capture_output=True, text=True
        )

    return run


def test_a_folder_of_a_store_comes_once(put: Put, copy: Any, tmp_path: Path) -> None:
    there = {"a.jsonl": b"one\n", "below/b.bin": bytes(range(256)) * 80_000, "": b"", "below/": b""}
    url = put(there)
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine.txt").write_text("stays")
    assert copy(url).returncode == 0
    files = {name: held for name, held in there.items() if not name.endswith("/") and name}
    assert contents(tmp_path / "to") == files | {"mine.txt": b"stays"}
    stamps = {p: p.stat().st_mtime_ns for p in (tmp_path / "to").rglob("*")}
    assert "0 files, 0 bytes" in copy(f"{url}/").stderr
    assert stamps == {p: p.stat().st_mtime_ns for p in (tmp_path / "to").rglob("*")}
    put({"a.jsonl": b"two\n"})
    assert "1 files, 4 bytes" in copy(url).stderr
    assert (tmp_path / "to" / "a.jsonl").read_bytes() == b"two\n"


def test_one_object_comes_under_its_name(put: Put, copy: Any, tmp_path: Path) -> None:
    assert copy(f"{put({'rows.jsonl': b'x'})}/rows.jsonl", "to/below").returncode == 0
    assert contents(tmp_path / "to") == {"below/rows.jsonl": b"x"}


WRONG = [
    ("acme/rows", Exit.CONFIG, "SOURCE: 'acme/rows' is no store; allowed: s3://bucket/prefix"),
    ("rows.jsonl", Exit.CONFIG, "SOURCE: 'rows.jsonl' is no store"),
    ("https://example.com/rows", Exit.CONFIG, "SOURCE: 'https://example.com/rows' is no store"),
    ("s3://bucket/nobody-put-this", Exit.ACCESS, "SOURCE: s3://bucket/nobody-put-this holds nothing"),
    ("s3://no-such-bucket/rows", Exit.ACCESS, "SOURCE: s3://no-such-bucket/rows: "),
]  # fmt: skip


@pytest.mark.parametrize(("url", "code", "line"), WRONG)
def test_what_cannot_be_copied_is_one_line(
    url: str, code: Exit, line: str, copy: Any, tmp_path: Path
) -> None:
    done = copy(url)
    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert line in done.stderr
    assert not (tmp_path / "to").exists()


def test_a_store_that_does_not_answer_is_worth_another_try(copy: Any) -> None:
    done = copy("s3://bucket/rows", AWS_ENDPOINT_URL=NOWHERE)
    assert done.returncode == Exit.NETWORK
    assert "check the network" in done.stderr


def test_no_object_lies_outside_of_the_folder(put: Put, copy: Any, tmp_path: Path) -> None:
    done = copy(put({"good": b"x", "below/../../../bad": b"x"}))
    assert done.returncode == Exit.DATA
    assert "outside of to" in done.stderr
    assert not (tmp_path / "to").exists()  # not even the good one


def test_a_file_that_cannot_be_written_whole_leaves_nothing_and_comes_later(
    put: Put, copy: Any, tmp_path: Path
) -> None:
    url = put({"large": bytes(4 << 20)})
    done = copy(url, "to", "bash", "-c", 'ulimit -f 1024; exec "$@"', "bash")
    assert done.returncode == Exit.CONFIG
    assert "to/large: cannot be written: File too large" in done.stderr
    assert not contents(tmp_path / "to")
    assert copy(url).returncode == 0
    assert (tmp_path / "to" / "large").stat().st_size == 4 << 20


def test_a_file_that_is_in_the_way_is_named(put: Put, copy: Any, tmp_path: Path) -> None:
    (tmp_path / "to").write_text("mine")
    done = copy(put({"rows.jsonl": b"x"}))
    assert done.returncode == Exit.CONFIG
    assert "to/rows.jsonl: cannot be written: " in done.stderr
    assert (tmp_path / "to").read_text() == "mine"


def test_a_run_of_all_weights_leaves_no_more_than_its_claim_has(full: Path) -> None:
    sizes = [path.stat().st_size for path in (full / "model").glob("*.safetensors")]
    parameters = sum(sizes) / 4  # in 32 bit, on the CPU
    held = sum(p.stat().st_size for p in full.rglob("*") if p.suffix in (".safetensors", ".pt"))
    assert parameters * 12 < held <= claims.of_run(parameters, full=True)

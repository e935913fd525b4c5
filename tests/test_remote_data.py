"""Data of object stores and web servers trains as a local file does: fetched once, whole, by version."""

import gzip
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from envtune.data.reading import formats
from envtune.errors import Exit, Refused
from envtune.settings.own import OWN
from envtune.transfer import remote
from envtune.transfer.stores import Objects
from tests import harness
from tests.harness import NOWHERE, ROOT, Entrypoint, Quiet, Result, clean_environ, contents
from tests.test_trust import WHOAMI, Company, behind_tls

Put = Callable[[Mapping[str, bytes]], str]
ROWS = b"".join(
    json.dumps({"instruction": f"say {n}", "input": "", "output": f"here is {n}"}).encode() + b"\n"
    for n in range(40)
)
SLOW = b"".join(ROWS for _ in range(400))


# --- servers


@dataclass
class Web:
    """A web server's files by path, and what it does to those who ask."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    status: dict[str, int] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    seen: list[str] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    pause: float = 0.0
    tagged: bool = True
    sized: bool = True


@contextmanager
def website() -> Iterator[Web]:
    made = Web()

    class Handler(Quiet):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            asked = self.headers.get("Range", "")
            made.seen.append(f"{path} {asked}".strip())
            if path in made.leads:
                self.send_response(302)
                self.send_header("Location", made.leads[path])
                self.end_headers()
                return
            if (status := made.status.get(path, 200 if path in made.files else 404)) != 200:
                self.send_response(status)
                self.end_headers()
                return
            self._send(made.files[path], int(asked[6:-1]) if asked else 0)

        def _send(self, held: bytes, start: int) -> None:
            self.send_response(206 if start else 200)
            if made.sized:
                self.send_header("Content-Length", str(len(held) - start))
            if made.tagged:
                self.send_header("ETag", f'"{hash(held)}"')
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.end_headers()
            rest = held[start:]
            cut = made.cuts.pop(0) if made.cuts else len(rest)
            with suppress(OSError):  # who asked has seen enough
                for first in range(0, min(cut, len(rest)), 65536):
                    self.wfile.write(rest[first : min(first + 65536, cut)])
                    time.sleep(made.pause)
            self.close_connection = True

    with harness.serving(Handler) as made.url:
        yield made


@pytest.fixture
def web() -> Iterator[Web]:
    with website() as made:
        yield made


@pytest.fixture
def put(s3: dict[str, str], request: pytest.FixtureRequest) -> Put:
    """Puts objects below a prefix of this test's, and says where that is."""
    client: Any = boto3.client(
        "s3", endpoint_url=s3["AWS_ENDPOINT_URL"], region_name=s3["AWS_DEFAULT_REGION"],
        aws_access_key_id=s3["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=s3["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    prefix = f"remote/{abs(hash(request.node.name))}"

    def write(objects: Mapping[str, bytes]) -> str:
        for name, held in objects.items():
            client.put_object(Bucket="bucket", Key=f"{prefix}/{name}", Body=held)
        return f"s3://bucket/{prefix}"

    return write


@pytest.fixture(params=["gs", "az"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, dict[str, str]]:
    """The address of a store that is no S3, and its variables."""
    environ = request.getfixturevalue({"gs": "gcs", "az": "azure"}[request.param])
    for name, value in environ.items():
        monkeypatch.setenv(name, value)  # the clients read it themselves
    url = f"{request.param}://bucket/{tmp_path.name}"
    if request.param == "az":
        with suppress(FileExistsError):
            Objects(url, environ)._files.mkdir("bucket")
    return url, environ


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    with behind_tls(tmp_path_factory.mktemp("company")) as made:
        yield made


@dataclass
class Command:
    """envtune in a folder of its own, with caches of its own."""

    folder: Path
    environ: dict[str, str]

    def __call__(self, *arguments: str, **more: str) -> Result:
        environ = clean_environ(**{**self.environ, **more})
        return harness.envtune(*arguments, cwd=self.folder, environ=environ)

    def popen(self, *arguments: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [str(ROOT / ".venv/bin/envtune"), *arguments], cwd=self.folder, stderr=subprocess.PIPE,
            stdout=subprocess.PIPE, env=clean_environ(**self.environ),
        )  # fmt: skip

    def whole(self) -> dict[str, bytes]:
        """What starts may take for whole: files of versions, without what is half there."""
        base = self.folder / "cache" / "envtune" / "remote"
        held = {path.relative_to(base): path for path in base.rglob("*") if path.is_file()}
        return {
            str(name): path.read_bytes()
            for name, path in held.items()
            if not any(part.endswith(".part") for part in name.parts) and len(name.parts) > 2
        }


@pytest.fixture
def envtune(tmp_path: Path, s3: dict[str, str]) -> Command:
    caches = {"SFT_CACHE_DIR": str(tmp_path / "cache"), "SFT_FETCH_SECONDS": "1"}
    return Command(tmp_path, {**s3, **caches})


# --- what comes


def test_a_prefix_trains_as_local_rows_do_and_a_second_start_finds_the_run_done(
    settings: dict[str, str], forking: dict[str, str], put: Put, s3: dict[str, str], tmp_path: Path
) -> None:
    rows = Path(settings["AXOLOTL_DATASETS__0__PATH"]).read_bytes()
    url = put({"rows.jsonl": rows, "notes.md": b"no rows", "_hidden.jsonl": b"no rows"})
    given = {
        "AXOLOTL_DATASETS__0__PATH": url, "AXOLOTL_MAX_STEPS": "2", "SFT_EXPORT": "false",
        "SFT_CACHE_DIR": str(tmp_path / "cache"),
    }  # fmt: skip
    start = Entrypoint(tmp_path, settings | given | s3 | forking)
    run = start.train()
    record = json.loads((run / "run.json").read_text())
    assert record["stages"]["prepare"]["by"] == "envtune"
    assert "s3://" not in (run / "config" / "axolotl.yaml").read_text()
    kept = contents(tmp_path / "cache" / "envtune" / "remote")
    assert [held for name, held in kept.items() if name.endswith(".jsonl")] == [rows]
    again = start.start().wait()
    assert "is in the cache" in again.err
    assert "already done" in again.err


def test_the_run_is_the_same_for_the_same_bytes_wherever_they_lie(
    envtune: Command, settings: dict[str, str], put: Put, web: Web
) -> None:
    web.files["/a/rows.jsonl"] = ROWS
    keys = set()
    for url in (f"{put({'x.jsonl': ROWS})}/x.jsonl", f"{web.url}/a/rows.jsonl"):
        given = {**settings, "AXOLOTL_DATASETS__0__PATH": url}
        done = envtune("configure", **given)
        assert done.code == 0, done.err
        told = envtune("print-runtime", "--format", "json", **given)  # of the copy: nobody is asked
        keys.add(json.loads(told.out)["RUN_KEY"])
    assert len(keys) == 1


FORMS: list[tuple[str, dict[str, bytes], int]] = [
    ("/a.jsonl", {"a.jsonl": ROWS}, 40),
    ("", {"a.jsonl": ROWS, "below/b.jsonl": ROWS, "c.bin": b"x"}, 80),
    ("/", {"a.jsonl": ROWS, "b.jsonl": ROWS}, 80),
    ("/*/rows-*.jsonl", {"1/rows-1.jsonl": ROWS, "2/rows-2.jsonl": ROWS, "2/x.jsonl": ROWS}, 80),
    ("/**/*.csv", {"a.csv": b"text\none\n", "b/c/d.csv": b"text\ntwo\n"}, 2),
    ("/t.tsv", {"t.tsv": b"instruction\toutput\na\tb\n"}, 1),
    ("/list.json", {"list.json": b'[{"text": "one"}, {"text": "two"}]'}, 2),
]  # fmt: skip


@pytest.fixture
def count(envtune: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], int]:
    """Fetches in this process and counts the rows."""
    for name, value in envtune.environ.items():
        monkeypatch.setenv(name, value)  # the clients read it themselves
    own = {name: row.default for name, row in OWN.items()} | {
        "SFT_CACHE_DIR": envtune.environ["SFT_CACHE_DIR"], "CKPT_ROOT": str(envtune.folder),
    }  # fmt: skip

    def counted(url: str) -> int:
        here = remote.item_here({"path": url}, "DATA", own.get, envtune.environ, fetch=True)
        return sum(len(batch.rows) for batch in formats.batches(here["path"]))

    return counted


@pytest.mark.parametrize(("end", "objects", "rows"), FORMS)
def test_files_folders_and_patterns_of_a_store(
    end: str, objects: dict[str, bytes], rows: int, put: Put, count: Callable[[str], int]
) -> None:
    assert count(f"{put(objects)}{end}") == rows


def test_packed_and_columnar_files(put: Put, count: Callable[[str], int], tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"text": ["one", "two"]}), tmp_path / "t.parquet")
    held = {
        "a.jsonl.gz": gzip.compress(ROWS),
        "b.jsonl.zst": zstandard.compress(ROWS),
        "c.parquet": (tmp_path / "t.parquet").read_bytes(),
    }
    assert count(put(held)) == 82


def test_data_files_of_a_store_are_a_data_set(
    put: Put, envtune: Command, settings: dict[str, str]
) -> None:
    url = put({"a.jsonl": ROWS, "b.jsonl": ROWS, "c.jsonl": b"no row"})
    item = {"path": url, "data_files": ["a.jsonl", "b.jsonl"]}
    reader = {"path": "json", "data_files": f"{url}/a.jsonl"}
    base = {"AXOLOTL_BASE_MODEL": settings["AXOLOTL_BASE_MODEL"], "SFT_PREPARED_DIR": "made"}
    for given, rows in ((item, 80), (reader, 40)):
        done = envtune("prepare", "--force", AXOLOTL_DATASETS=json.dumps([given]), **base)
        assert done.code == 0, done.err
        assert (
            json.loads((envtune.folder / "made/training_state.json").read_text())["rows_read"]
            == rows
        )


def test_other_stores_are_read_alike(
    store: tuple[str, dict[str, str]], count: Callable[[str], int]
) -> None:
    url, environ = store
    to = Objects(url, environ)
    for name in ("a.jsonl", "below/b.jsonl", "notes.md"):
        to._files.pipe_file(f"{to._root}/{name}", ROWS)
    for end, rows in (("", 80), ("/a.jsonl", 40), ("/*/*.jsonl", 40)):
        assert count(f"{url}{end}") == rows
    to._files.pipe_file(f"{to._root}/a.jsonl", ROWS + ROWS)
    assert count(url) == 120
    with pytest.raises(Refused, match="holds nothing") as raised:
        count(f"{url}/none")
    assert raised.value.exit == Exit.ACCESS


def test_a_companys_certificate_is_trusted_by_its_bundle_alone(
    company: Company, envtune: Command
) -> None:
    url = f"{company.url}rows.jsonl"
    refused = envtune("validate", url)
    assert refused.code == Exit.ACCESS, refused.err
    assert "set SFT_CA_BUNDLE" in refused.err
    done = envtune("convert", url, "made.jsonl", SFT_CA_BUNDLE=str(company.bundle))
    assert "fetch: " in done.err, done.err
    assert list(envtune.whole().values()) == [WHOAMI]


def test_another_version_comes_and_what_is_the_same_does_not(put: Put, envtune: Command) -> None:
    url = put({"a.jsonl": ROWS, "b.jsonl": ROWS})
    assert "2 files" in envtune("validate", url).err
    assert "is in the cache" in envtune("validate", url).err
    put({"b.jsonl": ROWS + ROWS})
    assert "120 rows" in envtune("validate", url).err
    next(envtune.folder.rglob("cache/**/a.jsonl")).unlink()
    assert "120 rows" in envtune("validate", url).err


def test_one_file_of_a_web_server_behind_a_redirect(web: Web, envtune: Command) -> None:
    web.files["/there/rows"] = ROWS
    web.leads["/download"] = "/there/rows?id=5"
    web.headers["Content-Disposition"] = 'attachment; filename="rows.jsonl"'
    done = envtune("convert", f"{web.url}/download?id=5", "made.jsonl")
    assert done.code == 0, done.err
    assert "wrote 40 rows" in done.err
    web.leads["/round"] = "/round"
    assert envtune("validate", f"{web.url}/round").code == Exit.ACCESS


def test_what_tells_neither_length_nor_version_is_told_by_its_content(
    web: Web, envtune: Command
) -> None:
    web.sized = web.tagged = False
    web.files["/rows.jsonl"] = ROWS
    assert "40 rows" in envtune("validate", f"{web.url}/rows.jsonl").err
    assert "40 rows" in envtune("validate", f"{web.url}/rows.jsonl").err
    assert len(envtune.whole()) == 1
    web.files["/rows.jsonl"] = ROWS + ROWS
    assert "80 rows" in envtune("validate", f"{web.url}/rows.jsonl").err
    assert len(envtune.whole()) == 2


# --- what does not come


WRONG = [
    ("s3://no-such-bucket/rows.jsonl", Exit.ACCESS, "no-such-bucket"),
    ("s3://bucket/nobody/put/this.jsonl", Exit.ACCESS, "holds nothing; check the address"),
    ("s3://bucket/nobody/*.jsonl", Exit.ACCESS, "holds nothing; check the address"),
]  # fmt: skip


@pytest.mark.parametrize(("url", "code", "line"), WRONG)
def test_what_is_not_there_is_one_line(
    url: str, code: Exit, line: str, put: Put, envtune: Command
) -> None:
    done = envtune("validate", url)
    assert done.code == code, done.err
    assert line in done.err
    assert len(done.err.splitlines()) == 1, done.err
    assert envtune.whole() == {}


def test_a_web_server_that_refuses_is_one_line_without_what_is_secret(
    web: Web, envtune: Command
) -> None:
    web.files["/page"] = b"<!doctype html><title>Log in</title>"
    for path, code, line in (
        ("/gone.jsonl", Exit.ACCESS, "status 404"), ("/no.jsonl", Exit.ACCESS, "status 403"),
        ("/broken.jsonl", Exit.NETWORK, "status 500"), ("/page", Exit.DATA, "leads to a page"),
    ):  # fmt: skip
        web.headers = {"Content-Type": "text/html; charset=utf-8"}
        web.status = {"/no.jsonl": 403, "/broken.jsonl": 500}
        url = web.url.replace("://", "://ada:s3cretword@")
        done = envtune("validate", f"{url}{path}?X-Amz-Signature=0123456789abcdef")
        assert done.code == code, done.err
        assert line in done.err
        assert f"{web.url}{path}" in done.err
        assert "s3cretword" not in done.err
        assert "0123456789abcdef" not in done.err
        assert envtune.whole() == {}


def test_keys_that_a_store_does_not_take_are_one_line(web: Web, envtune: Command) -> None:
    web.status = {"/bucket": 403, "/bucket/rows.jsonl": 403}
    done = envtune("validate", "s3://bucket/rows.jsonl", AWS_ENDPOINT_URL=web.url)
    assert done.code == Exit.ACCESS, done.err
    assert "s3://bucket/rows.jsonl" in done.err
    assert "s3cret-of-ada" not in done.err


def test_a_store_that_does_not_answer_is_worth_another_try_and_the_last_copy_is_taken(
    put: Put, envtune: Command
) -> None:
    url = put({"a.jsonl": ROWS})
    done = envtune("validate", url, AWS_ENDPOINT_URL=NOWHERE)
    assert done.code == Exit.NETWORK, done.err
    assert "gave up after" in done.err
    alone = envtune("validate", url, SFT_LOCAL_FILES_ONLY="true")
    assert (alone.code, "SFT_LOCAL_FILES_ONLY is set" in alone.err) == (Exit.ACCESS, True)
    assert envtune("validate", url).code == 0
    done = envtune("validate", url, AWS_ENDPOINT_URL=NOWHERE)
    assert (done.code, "the copy in" in done.err) == (0, True), done.err
    done = envtune("validate", url, AWS_ENDPOINT_URL=NOWHERE, SFT_LOCAL_FILES_ONLY="true")
    assert done.code == 0, done.err


def test_a_cut_connection_goes_on_where_it_ended(web: Web, envtune: Command) -> None:
    web.files["/rows.jsonl"] = SLOW
    web.cuts = [len(SLOW), 200_000]  # the first asks what is there
    done = envtune("validate", f"{web.url}/rows.jsonl", SFT_FETCH_SECONDS="30")
    assert done.code == 0, done.err
    assert [line for line in web.seen if "bytes=" in line], web.seen
    assert list(envtune.whole().values()) == [SLOW]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_fetch_that_is_ended_leaves_nothing_that_is_taken_for_whole(
    number: int, web: Web, envtune: Command
) -> None:
    web.files["/rows.jsonl"], web.pause = SLOW, 0.05
    child = envtune.popen("validate", f"{web.url}/rows.jsonl")
    parts: list[Path] = []
    while not any(path.stat().st_size for path in parts):
        parts = list(envtune.folder.rglob("cache/**/.*.part"))
        assert child.poll() is None
    child.send_signal(number)
    child.communicate()
    assert child.returncode == (143 if number == signal.SIGTERM else -number)
    assert envtune.whole() == {}
    web.pause = 0.0
    assert envtune("validate", f"{web.url}/rows.jsonl").code == 0
    assert [line for line in web.seen if "bytes=" in line], web.seen
    assert list(envtune.whole().values()) == [SLOW]


def test_two_starts_at_one_moment_fetch_once(web: Web, envtune: Command) -> None:
    web.files["/rows.jsonl"], web.pause = SLOW, 0.02
    children = [envtune.popen("validate", f"{web.url}/rows.jsonl") for _ in range(2)]
    told = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], told
    assert sum(b"is in the cache" in one for one in told) == 1, told


def test_a_disk_that_is_full_is_told_and_the_next_start_goes_on(web: Web, envtune: Command) -> None:
    web.files["/rows.jsonl"] = SLOW
    environ = clean_environ(**envtune.environ)
    command = [str(ROOT / ".venv/bin/envtune"), "validate", f"{web.url}/rows.jsonl"]
    limited = ["bash", "-c", 'ulimit -f 200; exec "$@"', "bash", *command]
    done = harness.execute(limited, envtune.folder, environ)
    assert done.code == Exit.DISK, done.err
    assert "the next start goes on" in done.err
    assert envtune.whole() == {}
    assert envtune("validate", f"{web.url}/rows.jsonl").code == 0


# --- what only looks


def test_a_check_asks_nobody_and_shows_no_key(
    web: Web, envtune: Command, settings: dict[str, str]
) -> None:
    web.files["/rows.jsonl"] = ROWS
    url = f"{web.url}/rows.jsonl?X-Amz-Signature=0123456789abcdef"
    given = {**settings, "AXOLOTL_DATASETS__0__PATH": url}
    done = envtune("check", **given)
    assert done.code == 0, done.err
    assert "is fetched when a run starts" in done.err
    assert web.seen == []
    made = envtune("configure", **given)
    assert made.code == 0, made.err
    asked = len(web.seen)
    done = envtune("check", **given)
    assert "as it was fetched last" in done.err
    assert len(web.seen) == asked
    everything = done.out + done.err + made.out + made.err
    held = [path.read_text() for path in envtune.folder.rglob("outputs/**/*") if path.is_file()]
    assert "0123456789abcdef" not in everything + "".join(held)


def test_a_start_that_cannot_come_to_its_end_fetches_nothing(
    web: Web, envtune: Command, settings: dict[str, str]
) -> None:
    web.files["/rows.jsonl"] = ROWS
    given = {**settings, "AXOLOTL_DATASETS__0__PATH": f"{web.url}/rows.jsonl"}
    done = envtune("configure", **given, AXOLOTL_RESUME_FROM_CHECKPOINT="/nowhere")
    assert done.code == Exit.CONFIG, done.err
    assert web.seen == []

"""Whatever lies where a file is read: one line or passed over, at once and in little memory."""

import os
import resource
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from envtune import channel, files
from envtune.artifacts import checkpoints, modelfiles, weights
from envtune.cli import termination
from envtune.errors import Refused
from envtune.machine import certificates
from envtune.resolve import facts
from envtune.runs import folders, lease
from envtune.settings import documents, prompts, sources

SECONDS, MEMORY = 10, 1 << 30


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(path.parent)  # a socket's path is short
        server.bind(path.name)
        os.chdir(here)


def _endless(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)  # of holes: a terabyte that takes no room


KINDS: dict[str, Callable[[Path], object]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a loop": lambda path: path.symlink_to(path),
    "a socket": _socket,
    "a folder": Path.mkdir,
    "nothing": lambda path: None,
    "brackets": lambda path: path.write_text("[" * 200_000),
    "braces": lambda path: path.write_text('{"a":' * 200_000),
    "no UTF-8": lambda path: path.write_bytes(b"\xff\xfe\x00" * 10),
    "no end": _endless,
}


@pytest.fixture(params=KINDS)
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], Path]:
    """Puts something odd at a path."""

    def put(path: Path) -> Path:
        KINDS[request.param](path)
        return path

    return put


@pytest.fixture(autouse=True)
def bounded() -> object:
    """Seconds and memory end; what takes more fails."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    resource.setrlimit(resource.RLIMIT_AS, before)


class Late(BaseException):
    """It waits. TimeoutError is an OSError, which the readers take for an odd file."""


def _late(*ignored: object) -> None:
    raise Late


Odd = Callable[[Path], Path]


def test_the_one_reader_tells_why(odd: Odd, tmp_path: Path) -> None:
    with pytest.raises((OSError, ValueError)) as told:
        files.read_json(odd(tmp_path / "x.json"), 1 << 20)
    assert str(told.value)


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_a_document(odd: Odd, tmp_path: Path, suffix: str) -> None:
    with pytest.raises(documents.DocumentError) as told:
        documents.read_file(odd(tmp_path / f"x.{suffix}"))
    assert "\n" not in str(told.value)


def test_a_file_of_prompts(odd: Odd, tmp_path: Path) -> None:
    with pytest.raises(documents.DocumentError):
        prompts._items(odd(tmp_path / "x.json"))


def test_a_secret_of_a_file(odd: Odd, tmp_path: Path) -> None:
    path = odd(tmp_path / "token")
    try:
        sources.read(environ={"HF_TOKEN_FILE": str(path)})
    except Refused as refused:
        assert refused.line.startswith("HF_TOKEN_FILE: ")
    else:
        assert path.read_text()[0] in "[{"  # a text like any other


def test_a_bundle(odd: Odd, tmp_path: Path) -> None:
    [told] = certificates.problems(str(odd(tmp_path / "ca.pem")), off=False)
    assert told.name == "SFT_CA_BUNDLE"


def test_the_data(odd: Odd, tmp_path: Path) -> None:
    [found] = facts.read_data([{"path": str(odd(tmp_path / "rows.jsonl"))}])
    assert found.problem or found.columns == ()


def test_a_model(odd: Odd, tmp_path: Path) -> None:
    odd(tmp_path / "config.json")
    facts.read_model(str(tmp_path))
    assert modelfiles.problems(tmp_path, (modelfiles.CONFIG,))


def test_weights(odd: Odd, tmp_path: Path) -> None:
    path = odd(tmp_path / "model.safetensors")
    with pytest.raises(weights.UNREADABLE):
        weights.header(path)


def test_another_run_is_passed_over(odd: Odd, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    odd(tmp_path / "other" / "run.json")
    assert folders.read_record(tmp_path / "other") == {}
    with pytest.raises(Refused):
        folders.named(tmp_path, "other")


def test_the_name_of_the_newest_run(odd: Odd, tmp_path: Path) -> None:
    odd(tmp_path / "latest.txt")
    with pytest.raises(Refused):
        folders.named(tmp_path, None)


def test_a_lease(odd: Odd, tmp_path: Path) -> None:
    odd(tmp_path / "lease")
    assert lease.last(tmp_path)[0] == ""


def test_a_checkpoint(odd: Odd, tmp_path: Path) -> None:
    for name in ("trainer_state.json", "envtune.json"):
        odd(tmp_path / name)
    assert not checkpoints.committed(tmp_path)
    assert not checkpoints.is_last(tmp_path)


def test_the_channel(odd: Odd, tmp_path: Path) -> None:
    odd(tmp_path / "outcome.json")
    try:
        assert channel.read_outcome(tmp_path) is None
    except OSError as error:  # the start ends by one line
        assert error.strerror


def test_the_last_word_stops_no_end(
    odd: Odd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERMINATION_LOG_FILE", str(odd(tmp_path / "message")))
    termination.terminate("the end")


def test_a_module_beside_the_run_is_not_the_librarys(tmp_path: Path) -> None:
    from envtune.render.launch import LaunchPlan
    from envtune.supervise import process

    (tmp_path / "random.py").write_text("raise SystemExit('not yours')")
    inner = (
        "import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', 'import random']))"
    )
    plan = LaunchPlan((sys.executable, "-c", inner), dict(os.environ), tmp_path)
    assert process.quietly(plan, tmp_path / "log") == 0, (tmp_path / "log").read_text()


@pytest.mark.parametrize("name", ["a-run1\n", "b-run1\nx", "a-run1 "])
def test_a_name_ends_where_it_ends(name: str) -> None:
    from envtune.settings.own import RUN_NAME
    from envtune.settings.schema import nodes

    assert not nodes.allows({"type": "string", "pattern": RUN_NAME}, name)
    assert nodes.allows({"type": "string", "pattern": RUN_NAME}, "a-run1")


@pytest.mark.parametrize(("name", "free"), [("latest.txt", False), ("latest.txt2", True)])
def test_a_folder_has_no_name_that_is_taken(name: str, free: bool) -> None:
    from envtune.settings.own import OWN
    from envtune.settings.schema import nodes

    assert nodes.allows(OWN["LEGACY_RUN_NAME"].node, name) is free

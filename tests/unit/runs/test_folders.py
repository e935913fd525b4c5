"""Claiming run folders, alone and sixteen at once, and the lease on one."""

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from envtune import files
from envtune.artifacts import checkpoints
from envtune.errors import Exit, Refused
from envtune.resolve.config import RunConfig
from envtune.runs import contents, folders, lease
from envtune.runs.folders import Run
from envtune.runs.lease import STALE, Lease
from tests.unit.builders import run_config

ROOT = Path(__file__).parents[3]
NAME = "tiny-llama-rows-full"


def claim(tmp_path: Path, key: str = "key", config: RunConfig | None = None) -> Run:
    return folders.claim(config or run_config(), key, tmp_path / "out", tmp_path / "logs")


def preview(tmp_path: Path, key: str = "key", config: RunConfig | None = None) -> tuple[str, Path]:
    name, folder = folders.preview(config or run_config(), key, tmp_path / "out", tmp_path / "logs")
    return name.name, folder


def finish(run: Run) -> None:
    (run.folder / contents.COMPLETE).write_text("{}")


def everything(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


def test_a_preview_creates_nothing_and_tells_what_the_claim_will_be(tmp_path: Path) -> None:
    for key in ("one", "two"):
        before = everything(tmp_path)
        told = preview(tmp_path, key)
        assert everything(tmp_path) == before
        run = claim(tmp_path, key)
        assert (run.name, run.folder) == told
        assert preview(tmp_path, key) == told


def test_the_same_key_gets_the_same_folder_and_another_key_the_next_number(tmp_path: Path) -> None:
    assert [claim(tmp_path, key).name for key in ("a", "b", "a", "c", "b")] == [
        f"{NAME}-run{number}" for number in (1, 2, 1, 3, 2)
    ]


def test_a_finished_run_is_found_again_and_rerun_only_on_demand(tmp_path: Path) -> None:
    first = claim(tmp_path)
    finish(first)
    assert claim(tmp_path).finished
    again = claim(tmp_path, config=run_config(SFT_RERUN=True))
    assert again.name == f"{NAME}-run2"
    assert claim(tmp_path, config=run_config(SFT_RERUN=True)).name == again.name
    assert claim(tmp_path).name == again.name


def test_a_number_that_only_the_logs_know_is_not_given_again(tmp_path: Path) -> None:
    (tmp_path / "logs" / f"{NAME}-run4").mkdir(parents=True)
    assert claim(tmp_path).name == f"{NAME}-run5"


def test_latest_points_to_the_newest_claim_in_both_places(tmp_path: Path) -> None:
    for key in ("a", "b"):
        run = claim(tmp_path, key)
        for base in ("out", "logs"):
            text = (tmp_path / base / folders.LATEST).read_text()
            assert text == f"{run.name}\n"


def test_a_log_lies_below_the_logs_folder(tmp_path: Path) -> None:
    log = claim(tmp_path).log("train")
    assert log == tmp_path / "logs" / f"{NAME}-run1" / "train" / "run.log"
    assert log.parent.is_dir()


def test_a_folder_opens_as_the_run_that_it_holds(tmp_path: Path) -> None:
    run = claim(tmp_path)
    assert folders.open_run(run.folder) == run


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}", '{"name": "x"}'])
def test_a_folder_without_a_whole_record_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / contents.RECORD).write_text(text)
    with pytest.raises(Refused, match="holds no run"):
        folders.open_run(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": "key"}'])
def test_a_damaged_record_beside_it_does_not_keep_a_run_from_starting(
    tmp_path: Path, text: str
) -> None:
    other = tmp_path / "out" / f"{NAME}-run1"
    other.mkdir(parents=True)
    (other / contents.RECORD).write_text(text)
    assert claim(tmp_path).name == f"{NAME}-run2"


def test_a_forced_name_goes_on_with_its_own_run_and_is_refused_for_another(tmp_path: Path) -> None:
    forced = run_config(FORCE_RUN_NAME="mine-run7")
    assert claim(tmp_path, config=forced).name == "mine-run7"
    assert claim(tmp_path, config=forced).name == "mine-run7"
    with pytest.raises(Refused, match="FORCE_RUN_NAME: mine-run7 exists"):
        claim(tmp_path, "another", forced)


def test_a_forced_number_is_refused_where_another_configuration_has_it(tmp_path: Path) -> None:
    claim(tmp_path)
    with pytest.raises(Refused, match="FORCE_RUN_INDEX"):
        claim(tmp_path, "another", run_config(FORCE_RUN_INDEX=1))


def test_a_name_of_before_the_counter_is_refused_for_another_configuration(tmp_path: Path) -> None:
    legacy = run_config(USE_LEGACY_NAMING=True)
    assert claim(tmp_path, config=legacy).name == claim(tmp_path, config=legacy).name
    with pytest.raises(Refused, match="LEGACY_RUN_NAME"):
        claim(tmp_path, "another", legacy)


def test_two_timestamped_runs_in_one_second_are_both_started(tmp_path: Path) -> None:
    (tmp_path / "out" / f"{NAME}-run9999").mkdir(parents=True)
    time.sleep(1 - time.time() % 1)  # the two claims fall into one second
    assert claim(tmp_path, "a").name != claim(tmp_path, "b").name


def explicit(tmp_path: Path, folder: str = "mine") -> RunConfig:
    return run_config(output_dir=str(tmp_path / folder))


def test_an_explicit_folder_holds_the_run_itself(tmp_path: Path) -> None:
    run = claim(tmp_path, config=explicit(tmp_path))
    assert run.folder == tmp_path / "mine"
    assert claim(tmp_path, config=explicit(tmp_path)) == run
    assert (tmp_path / "out" / folders.LATEST).read_text() == f"{run.folder}\n"


def test_an_explicit_folder_of_another_configuration_is_refused(tmp_path: Path) -> None:
    claim(tmp_path, config=explicit(tmp_path))
    before = everything(tmp_path)
    with pytest.raises(Refused, match="a run of another configuration"):
        claim(tmp_path, "another", explicit(tmp_path))
    with pytest.raises(Refused, match="a run of another configuration"):
        preview(tmp_path, "another", explicit(tmp_path))
    assert everything(tmp_path) == before


def test_an_explicit_folder_is_not_trained_over_even_on_demand(tmp_path: Path) -> None:
    finish(claim(tmp_path, config=explicit(tmp_path)))
    rerun = run_config(output_dir=str(tmp_path / "mine"), SFT_RERUN=True)
    with pytest.raises(Refused, match="a finished run"):
        claim(tmp_path, config=rerun)


@pytest.mark.parametrize("name", ["adapter", "model", "checkpoints", "config", "data"])
def test_an_explicit_folder_with_somebody_elses_files_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "mine" / name).mkdir(parents=True)
    with pytest.raises(Refused, match="name an empty folder"):
        claim(tmp_path, config=explicit(tmp_path))


def test_two_explicit_folders_do_not_share_a_log(tmp_path: Path) -> None:
    one = claim(tmp_path, "a", explicit(tmp_path, "one"))
    two = claim(tmp_path, "b", explicit(tmp_path, "two"))
    assert one.logs != two.logs


CLAIM = """
import resource, sys, time
from pathlib import Path
from envtune.runs import contents, folders
from tests.unit.builders import run_config
base, key, output_dir = Path(sys.argv[1]), sys.argv[2], sys.argv[3] or None
(base / f"ready-{sys.argv[4]}").touch()
while not (base / "go").exists():
    time.sleep(0.001)
limit = int(time.process_time()) + 10
resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
print(folders.claim(run_config(output_dir=output_dir), key, base / "out", base / "logs").name)
"""


def at_once(tmp_path: Path, keys: list[str]) -> list[str]:
    """The names that as many processes get when they claim at the same moment."""
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIM, str(tmp_path), key, "", str(number)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )
        for number, key in enumerate(keys)
    ]  # fmt: skip
    while len(list(tmp_path.glob("ready-*"))) < len(keys):
        assert all(child.poll() is None for child in children)
        time.sleep(0.01)
    (tmp_path / "go").touch()
    return [child.communicate()[0].strip() for child in children]


def test_sixteen_starts_at_once_with_different_keys_get_different_numbers(tmp_path: Path) -> None:
    names = at_once(tmp_path, [f"key{i}" for i in range(16)])
    assert sorted(names) == sorted(f"{NAME}-run{i}" for i in range(1, 17))
    keys = {folders.read_record(tmp_path / "out" / name)["key"] for name in names}
    assert len(keys) == 16


def test_sixteen_starts_at_once_with_the_same_key_get_the_same_folder(tmp_path: Path) -> None:
    assert set(at_once(tmp_path, ["key"] * 16)) == {f"{NAME}-run1"}


@pytest.mark.parametrize("file", [f"out/{NAME}-run1", "mine"])
def test_a_file_in_the_place_of_a_run_does_not_hang_the_start(tmp_path: Path, file: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / file).write_text("")
    (tmp_path / "go").touch()
    folder = str(tmp_path / file) if file == "mine" else ""
    command = [sys.executable, "-c", CLAIM, str(tmp_path), "key", folder, "0"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True)
    assert done.returncode >= 0, "it used up its processor time"


def trained(run: Run, key: str) -> None:
    """A checkpoint of a run, as its manifest tells of it."""
    path = run.folder / "checkpoints" / "checkpoint-4"
    path.mkdir(parents=True)
    (path / "weights").touch()
    checkpoints.commit(path, 4, key)


def test_a_run_that_has_lost_its_record_is_found_by_its_copy_or_its_checkpoints(
    tmp_path: Path,
) -> None:
    run = claim(tmp_path, "mine")
    before = folders.read_record(run.folder)
    (run.folder / "run.json").write_bytes(bytes(99))
    assert folders.read_record(run.folder) == before
    assert claim(tmp_path, "mine").folder == run.folder
    trained(run, "mine")
    shutil.rmtree(run.folder / "config")
    assert folders.read_record(run.folder) == {}
    assert claim(tmp_path, "other").folder != run.folder
    found = claim(tmp_path, "mine")
    assert (found.folder, found.key) == (run.folder, "mine")
    lasting = ("name", "prefix", "number", "key", "logs")
    assert [folders.read_record(run.folder)[name] for name in lasting] == [
        before[name] for name in lasting
    ]
    assert (run.folder / "run.json.kept-1").read_bytes() == bytes(99)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_record_that_cannot_be_read_at_the_moment_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A new run would train again what the next start may find."""
    run, head = claim(tmp_path, "mine"), files.head

    def fails(path: Path, length: int) -> bytes:
        if run.folder in path.parents:
            raise OSError(number, os.strerror(number), str(path))
        return head(path, length)

    monkeypatch.setattr(files, "head", fails)
    with pytest.raises(Refused, match=r"run\.json: .*; nothing is changed") as refused:
        claim(tmp_path, "mine")
    assert refused.value.exit == Exit.DISK
    assert [p.name for p in run.folder.parent.iterdir() if p.is_dir()] == [run.name]


@pytest.mark.parametrize("harm", ["emptied", "binary", "folder", "gone"])
def test_the_name_of_the_newest_run_is_mended_by_the_run_that_goes_on(
    tmp_path: Path, harm: str
) -> None:
    run = claim(tmp_path, "mine")
    path = run.folder.parent / "latest.txt"
    path.unlink()
    if harm == "folder":
        path.mkdir()
    elif harm != "gone":
        path.write_bytes(b"" if harm == "emptied" else b"\xff\x00")
    assert folders.foreign_pointer("SFT_OUTPUTS_DIR", run.folder.parent) is None
    claim(tmp_path, "mine")
    assert path.read_text() == f"{run.name}\n"


HOLD = """
import sys
from pathlib import Path
from envtune.runs.lease import Lease
with Lease(Path(sys.argv[1])) as lease:
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that wants the lease and keeps it until its input ends."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_lease_that_a_living_process_holds_is_refused_with_its_number(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        assert said(child) == "held"
        with pytest.raises(Refused, match=f"process {child.pid} "), Lease(tmp_path):
            pytest.fail("two hold one lease")


def test_a_lease_is_free_after_its_holder(tmp_path: Path) -> None:
    for _ in range(2):
        with Lease(tmp_path) as lease:
            assert json.loads(lease.path.read_text())["pid"] == os.getpid()
        assert lease.path.read_text() == ""


def test_the_lease_of_a_killed_holder_is_free(tmp_path: Path) -> None:
    with holder(tmp_path) as child:
        assert said(child) == "held"
        child.kill()
        child.wait()
        with Lease(tmp_path) as lease:
            assert str(os.getpid()) in lease.path.read_text()


def leave_elsewhere(folder: Path, age: float) -> Path:
    """The lease of another machine whose last beat was `age` seconds ago."""
    path = folder / "lease"
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    os.utime(path, (time.time() - age,) * 2)
    return path


HOUR = 3600.0


@pytest.mark.parametrize("age", [STALE + 1, 0.0, HOUR, -HOUR])
def test_another_machines_lease_is_free_once_it_is_seen_not_to_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    """Whatever the clock of that machine says: an hour ahead is not waited for an hour."""
    monkeypatch.setattr(lease, "STALE", 1.0)
    leave_elsewhere(tmp_path, age)
    with Lease(tmp_path) as held:
        assert str(os.getpid()) in held.path.read_text()


@pytest.mark.parametrize("age", [0.0, -HOUR])
def test_another_machines_beating_lease_is_not_free_until_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, age: float
) -> None:
    monkeypatch.setattr(lease, "STALE", 5.0)
    path, beats = leave_elsewhere(tmp_path, age), []

    def beat() -> None:
        for _ in range(30):
            time.sleep(0.1)
            os.utime(path, (time.time() - age,) * 2)
            beats.append(path.read_text())

    other = threading.Thread(target=beat)
    other.start()
    with Lease(tmp_path):
        assert not other.is_alive()
    assert len(beats) == 30
    assert all("elsewhere" in text for text in beats)


@pytest.mark.parametrize("text", ["{", "half", "[]", "null", '{"stamp": 5}', '{"host": 5}'])
def test_a_damaged_lease_is_free(tmp_path: Path, text: str) -> None:
    (tmp_path / "lease").write_text(text)
    with Lease(tmp_path) as lease:
        assert str(os.getpid()) in lease.path.read_text()

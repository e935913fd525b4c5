"""The models of a run come from the Hub once, before training, whatever happens on the way."""

import re
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import load_file, save_file

from tests.harness import Entrypoint, Result, Start
from tests.hub_standin import COMMIT, Hub, Repo, hub

WEIGHTS = f"/acme/tiny/resolve/{COMMIT}/model.safetensors"
# What a run may spend on the Hub where the test is about giving up.
SHORT = {"SFT_FETCH_SECONDS": "20"}


@pytest.fixture(scope="session")
def repository(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with what else lies in repositories; its weights are large enough to be
    written in several goes, of 10 MiB each."""
    folder = tmp_path_factory.mktemp("repository") / "tiny"
    shutil.copytree(embedded / "tiny-llama", folder)
    tensors = load_file(folder / "model.safetensors")
    noise = numpy.random.default_rng(0).random(8_000_000, dtype=numpy.float32)
    save_file({**tensors, "padding": noise}, folder / "model.safetensors", {"format": "pt"})
    for name in ("pytorch_model.bin", "model.Q4_K_M.gguf", "consolidated.safetensors"):
        (folder / name).write_bytes(b"never asked for")
    return folder


@pytest.fixture
def the_hub(repository: Path) -> Iterator[Hub]:
    with hub() as made:
        made.repos["model", "acme/tiny"] = Repo(repository)
        yield made


@pytest.fixture
def entrypoint(the_hub: Hub, settings: dict[str, str], tmp_path: Path) -> Entrypoint:
    """A start whose model is on the Hub and whose cache is empty."""
    more = {
        "HF_ENDPOINT": the_hub.url,
        "HF_HUB_OFFLINE": "",
        "HF_HOME": str(tmp_path / "hf"),
        "AXOLOTL_BASE_MODEL": "acme/tiny",
        "AXOLOTL_MAX_STEPS": "1",
        "SFT_EXPORT": "false",
    }
    return Entrypoint(tmp_path, settings | more)


def _asked(hub: Hub, method: str = "GET") -> list[str]:
    """The files that were asked for, in order."""
    return [
        line.split(f"{COMMIT}/")[1]
        for line in hub.seen
        if line.startswith(f"{method} ") and COMMIT in line
    ]


def _cached(folder: Path) -> list[Path]:
    return list(folder.glob(f"hf/hub/models--acme--tiny/snapshots/{COMMIT}/model.safetensors"))


def _parts(folder: Path) -> list[Path]:
    """The weights that have come in part, once something of them is on the disk."""
    found = []
    for path in folder.glob("hf/hub/models--acme--tiny/blobs/*.incomplete"):
        with suppress(FileNotFoundError):  # a small file gets its final name at any moment
            if path.stat().st_size > 10_000_000:
                found.append(path)
    return found


def _said(result: Result) -> list[str]:
    return [line for line in result.lines if " fetch: " in line]


def _stopped_after_the_fetch(start: Start) -> Result:
    """Ends a start whose model is there: what comes next is another test's."""
    start.until_said("train: loading the libraries")
    assert _cached(start.folder)
    start.signal()
    result = start.wait()
    assert result.code == 143, result.err[-2000:]
    return result


def test_two_ranks_train_on_what_was_fetched_once_and_a_warm_cache_is_asked_for_no_file(
    entrypoint: Entrypoint, the_hub: Hub
) -> None:
    run = entrypoint.train(NPROC="2")
    assert (run / ".complete").exists()
    asked = _asked(the_hub)
    assert asked.count("model.safetensors") == 1
    assert len(asked) == len(set(asked)), asked
    assert not [name for name in asked if name.endswith((".bin", ".gguf")) or "consol" in name]
    the_hub.seen.clear()
    result = _stopped_after_the_fetch(entrypoint.start(SFT_RERUN="true"))
    assert _said(result) == ["INFO fetch: acme/tiny is in the cache"]
    assert _asked(the_hub) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_fetch_that_is_ended_in_the_middle_goes_on_there(
    number: int, entrypoint: Entrypoint, the_hub: Hub
) -> None:
    the_hub.faults = [(f"GET {WEIGHTS}", "stall")]
    start = entrypoint.start()
    start.until(lambda: bool(_parts(start.folder)))
    start.signal(number)
    result = start.wait()
    assert result.code == 128 + number
    if number == signal.SIGTERM:
        text = "stopped at fetch: nothing to save yet; the next start goes on from there"
        assert result.err.splitlines()[-1].endswith(text)
    assert start.gone()
    come = _parts(start.folder)[0].stat().st_size
    _stopped_after_the_fetch(entrypoint.start())
    assert _asked(the_hub)[-1] == f"model.safetensors bytes={come}-"


def test_a_busy_hub_and_a_cut_line_cost_tries_and_no_byte_twice(
    entrypoint: Entrypoint, the_hub: Hub
) -> None:
    the_hub.faults = [(f"GET {WEIGHTS}", fault) for fault in ("429 3", "429 0", "503", "cut")]
    result = _stopped_after_the_fetch(entrypoint.start())
    tries = [re.sub(r" in \d+ s", "", line) for line in _said(result) if "WARNING" in line]
    assert tries == [
        f"WARNING fetch: {the_hub.url} answers with status 429; try 2",
        f"WARNING fetch: {the_hub.url} answers with status 429; try 3",
        f"WARNING fetch: {the_hub.url} answers with status 503; try 4",
        f"WARNING fetch: {the_hub.url} cannot be reached (RemoteProtocolError); try 5",
    ]
    waits = [int(n) for n in re.findall(r"in (\d+) s", result.err)]
    assert waits[0] >= 3 + 1
    assert re.fullmatch(r"model.safetensors bytes=\d{8}-", _asked(the_hub)[-1])


@pytest.mark.parametrize(
    ("fault", "code", "line"),
    [
        ("503", 201, r"ERROR AXOLOTL_BASE_MODEL: {hub} answers with status 503(; the transfer is not at its end)?; gave up after \d+ tr(?:y|ies) in \d:\d\d \(SFT_FETCH_SECONDS is 20\); what has come stays, the next start goes on"),
        ("403", 4, r"ERROR AXOLOTL_BASE_MODEL: {hub} refuses acme/tiny with status 403: trouble"),
    ],
)  # fmt: skip
def test_a_hub_that_stays_away_or_refuses_is_one_line(
    fault: str, code: int, line: str, entrypoint: Entrypoint, the_hub: Hub
) -> None:
    the_hub.faults = [(f"GET {WEIGHTS}", fault)] * 99
    result = entrypoint.run(**SHORT)
    assert result.code == code, result.err
    assert re.fullmatch(line.replace("{hub}", the_hub.url), result.lines[-1]), result.err
    assert "Traceback" not in result.err


def test_what_does_not_fit_is_told_before_a_byte_is_fetched(
    entrypoint: Entrypoint, the_hub: Hub, repository: Path
) -> None:
    claimed = {"huge.txt": 1 << 60}
    the_hub.repos["model", "acme/tiny"] = Repo(repository, claimed=claimed)
    result = entrypoint.run()
    assert result.code == 200, result.err
    told = (
        r"ERROR acme/tiny: 10737418\d\d\.\d\d GiB are to come and \S+/hf/hub has \d+\.\d\d GiB free"
    )
    assert re.match(told, result.lines[-1]), result.err
    assert _asked(the_hub) == []


def test_a_hanging_xet_transfer_is_ended_and_comes_by_http(
    entrypoint: Entrypoint, the_hub: Hub, repository: Path
) -> None:
    the_hub.repos["model", "acme/tiny"] = Repo(repository, xet=True)
    the_hub.faults = [("GET /v", "hang")] * 99
    result = _stopped_after_the_fetch(entrypoint.start(HF_HUB_DOWNLOAD_TIMEOUT="3"))
    assert re.search(r"fetch: the transfer has moved nothing for 36 s; try \d in", result.err)
    assert _asked(the_hub).count("model.safetensors") == 1


def test_what_another_hand_began_and_got_wrong_is_fetched_again(
    entrypoint: Entrypoint, the_hub: Hub, repository: Path
) -> None:
    """As a file with holes is that Xet began: it has its length."""
    the_hub.faults = [(f"GET {WEIGHTS}", "stall")]
    start = entrypoint.start()
    start.until(lambda: bool(_parts(start.folder)))
    start.signal()
    start.wait()
    part = _parts(start.folder)[0]
    part.write_bytes(bytes((repository / "model.safetensors").stat().st_size))
    result = _stopped_after_the_fetch(entrypoint.start())
    assert "Torn: model.safetensors did not come whole; try 2" in result.err
    assert _cached(start.folder)[0].read_bytes() == (repository / "model.safetensors").read_bytes()


def test_two_runs_at_once_fetch_into_one_cache_once(
    entrypoint: Entrypoint, the_hub: Hub, tmp_path: Path
) -> None:
    the_hub.faults = [(f"GET {WEIGHTS}", "hold")]
    starts = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "hf").symlink_to(tmp_path / "hf")
        starts.append(Entrypoint(tmp_path / name, entrypoint.settings).start())
    starts[0].until(lambda: the_hub.seen.count(f"HEAD {WEIGHTS}") >= 2)
    time.sleep(1)  # the second would ask by now
    the_hub.go.set()
    for start in starts:
        _stopped_after_the_fetch(start)
    assert _asked(the_hub).count("model.safetensors") == 1


def test_a_local_run_says_nothing_of_it(settings: dict[str, str], tmp_path: Path) -> None:
    start = Entrypoint(tmp_path, settings).start(HF_HUB_OFFLINE="")
    start.until_said("train: loading the libraries")
    start.signal()
    assert _said(start.wait()) == []

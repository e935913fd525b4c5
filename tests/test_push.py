"""How a folder is sent: to the Hub's stand-in, to real servers of S3's, Google's and Azure's
protocols on loopback, and to another folder; through networks and servers that fail."""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from envtune.transfer import hubstore, upload
from envtune.transfer.hub import Hub as Asked
from envtune.transfer.stores import Denied, Objects, Unreached
from tests.harness import contents
from tests.hub_standin import Hub
from tests.stores import ADA, requests

QUICK = (0.05, 0.05, 0.05)


@pytest.fixture
def result(tmp_path: Path) -> Path:
    """A folder as it is published: weights, configuration, a card."""
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "adapter_config.json").write_text('{"r": 16}')
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A card\n")
    return folder


def repository(hub: Hub, id_: str = "ada/new", token: str = ADA, **more: Any) -> Any:
    asked = Asked({"HF_ENDPOINT": hub.url, "HF_TOKEN": token})
    return hubstore.HubRepository(asked, id_, more.get("revision"), private=True)


# --- the Hub


def test_a_repository_is_made_private_and_gets_everything_in_one_commit(
    new_hub: Hub, result: Path
) -> None:
    told = upload.push(repository(new_hub), result, QUICK)
    assert told["url"] == f"{new_hub.url}/ada/new"
    assert (told["files"], told["bytes"]) == (3, told["sent_bytes"])
    disk = new_hub.disk
    assert disk is not None
    assert told["commit"] == disk.head
    assert contents(disk.folder("ada/new")) == contents(result)
    assert disk.commits == [("ada/new", sorted(contents(result)))]
    assert disk.private == {"ada/new": True}


def test_what_is_there_is_not_sent_again_and_a_change_is(new_hub: Hub, result: Path) -> None:
    upload.push(repository(new_hub), result, QUICK)
    new_hub.seen.clear()
    assert upload.push(repository(new_hub), result, QUICK)["sent_bytes"] == 0
    assert not requests(new_hub, "PUT")
    assert not requests(new_hub, "POST /api/models")
    (result / "adapter_config.json").write_text('{"r": 17}')
    assert upload.push(repository(new_hub), result, QUICK)["sent_bytes"] == len('{"r": 17}')
    assert new_hub.disk is not None
    assert new_hub.disk.commits[-1] == ("ada/new", ["adapter_config.json"])


def test_what_another_artifact_left_goes_and_what_people_wrote_stays(
    new_hub: Hub, result: Path
) -> None:
    assert new_hub.disk is not None
    there = new_hub.disk.folder("acme/tuned")
    there.mkdir(parents=True)
    for name in ("model-00001-of-00002.safetensors", "config.json", "NOTES.md", "eval.json"):
        (there / name).write_text(name)
    upload.push(repository(new_hub, "acme/tuned"), result, QUICK)
    assert sorted(contents(there)) == sorted([*contents(result), "NOTES.md", "eval.json"])


def test_a_revision_is_made_and_a_name_without_an_owner_is_the_tokens(
    new_hub: Hub, result: Path
) -> None:
    told = upload.push(repository(new_hub, "mine", revision="v2"), result, QUICK)
    assert told["url"] == f"{new_hub.url}/ada/mine/tree/v2"
    assert new_hub.disk is not None
    assert new_hub.disk.branches == {"v2"}


FAULTS = {
    "503 twice": [("POST /api/repos", "503"), ("POST /api/repos", "503")],
    "503 at the commit": [("POST /api/models/ada/new/commit", "503")],
    "429": [("GET /api/models/ada/new/tree", "429")],
    "cut in a file": [("PUT /lfs/", "cut")],
    "cut in the commit": [("POST /api/models/ada/new/commit", "cut")],
}


@pytest.mark.parametrize("faults", FAULTS.values(), ids=FAULTS.keys())
def test_a_hub_that_fails_for_a_while_is_asked_again(
    faults: list[tuple[str, str]], new_hub: Hub, result: Path
) -> None:
    new_hub.faults = list(faults)
    upload.push(repository(new_hub), result, QUICK)
    assert not new_hub.faults, "the fault was not met"
    assert new_hub.disk is not None
    assert contents(new_hub.disk.folder("ada/new")) == contents(result)
    assert len(new_hub.disk.commits) == 1


def test_weights_that_arrived_before_a_commit_failed_are_not_sent_again(
    new_hub: Hub, result: Path
) -> None:
    new_hub.faults = [("POST /api/models/ada/new/commit", "cut")]
    upload.push(repository(new_hub), result, QUICK)
    assert len(requests(new_hub, "PUT /lfs/")) == 1


@pytest.mark.parametrize(("id_", "token"), [("ada/new", "hf_wrong"), ("museum/new", ADA)])
def test_a_token_that_may_not_write_is_told_at_once(
    id_: str, token: str, new_hub: Hub, result: Path
) -> None:
    with pytest.raises(Denied, match=r"answers 40[13]"):
        upload.push(repository(new_hub, id_, token), result, QUICK)
    assert len(requests(new_hub, "POST")) == 1


def test_a_listing_that_lacks_a_file_is_no_success(new_hub: Hub, result: Path) -> None:
    new_hub.hidden = {"adapter_model.safetensors"}
    with pytest.raises(Unreached, match=r"adapter_model.safetensors is not there as it was sent"):
        upload.push(repository(new_hub), result, QUICK)
    assert len(requests(new_hub, "PUT /lfs/")) == 1


# --- stores


Store = tuple[str, dict[str, str]]


@pytest.fixture(params=["s3", "gs", "az", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The address of a store that may be written to, and its variables."""
    if request.param == "file":
        return f"file://{tmp_path}/store", {}
    names = {"s3": "s3", "gs": "gcs", "az": "azure"}
    environ: dict[str, str] = request.getfixturevalue(names[request.param])
    for name, value in environ.items():
        monkeypatch.setenv(name, value)  # the clients read it themselves
    url = f"{request.param}://bucket/{tmp_path.name}"
    if request.param == "az":
        with suppress(FileExistsError):
            Objects(url, environ)._files.mkdir("bucket")
    return url, environ


def test_a_store_gets_what_it_lacks_and_nothing_else(store: Store, result: Path) -> None:
    """All of it; nothing; what changed; what was damaged there; and what was left goes."""
    url, environ = store
    to = Objects(f"{url}/run1", environ)
    to.probe()
    assert to.listing() == {}
    assert upload.push(to, result, QUICK)["sent_bytes"] > 300_000
    assert upload.push(to, result, QUICK)["sent_bytes"] == 0
    (result / "adapter_config.json").write_text('{"r": 32}')
    assert upload.push(to, result, QUICK)["sent_bytes"] == len('{"r": 32}')
    to._files.pipe_file(f"{to._root}/README.md", b"x" * (result / "README.md").stat().st_size)
    to._files.pipe_file(f"{to._root}/config.json", b"{}")
    to._files.pipe_file(f"{to._root}/NOTES.md", b"mine")
    told = upload.push(to, result, QUICK)
    assert told["sent_bytes"] == (result / "README.md").stat().st_size
    got = {name: to._files.cat_file(f"{to._root}/{name}") for name in to.listing()}
    assert got.pop("NOTES.md") == b"mine"
    assert got == contents(result)


def test_a_store_that_is_not_there_is_no_place_to_write(store: Store) -> None:
    url, environ = store
    if url.startswith("file"):
        (Path(url.removeprefix("file://")).parent / "taken").touch()
        missing = f"{url}/../taken/below"
    else:
        missing = f"{url.partition('://')[0]}://nowhere-{os.getpid()}/x"
    with pytest.raises(Denied):
        Objects(missing, environ).probe()


class Proxy:
    """A network in front of a server: cuts the first connections after some bytes."""

    def __init__(self, host: str, cuts: list[int]) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.host, self.cuts = host.split(":"), cuts
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                threading.Thread(
                    target=self._carry, args=(self.server.accept()[0],), daemon=True
                ).start()

    def _carry(self, near: socket.socket) -> None:
        far = socket.create_connection((self.host[0], int(self.host[1])))
        threading.Thread(target=self._back, args=(far, near), daemon=True).start()
        carried = 0
        with suppress(OSError):
            while data := near.recv(4096):
                carried += len(data)
                if self.cuts and carried > self.cuts[0]:
                    self.cuts.pop(0)
                    near.shutdown(socket.SHUT_RDWR)
                    break
                far.sendall(data)
        far.close()

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
        near.close()


def test_a_connection_cut_in_the_middle_of_a_file_is_no_loss(
    s3: dict[str, str], result: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = Proxy(s3["AWS_ENDPOINT_URL"].removeprefix("http://"), [100_000] * 12)
    for name, value in {**s3, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}.items():
        monkeypatch.setenv(name, value)
    to = Objects("s3://bucket/cut", s3)
    upload.push(to, result, QUICK)
    assert len(proxy.cuts) < 12, "nothing was cut"
    got = {name: to._files.cat_file(f"{to._root}/{name}") for name in to.listing()}
    assert got == contents(result)


# --- what others have there


def test_what_others_have_in_a_folder_is_neither_written_over_nor_removed(
    result: Path, tmp_path: Path
) -> None:
    store, places = tmp_path / "store", tmp_path / "places.json"
    store.mkdir()
    for name in ("README.md", "model.safetensors", "notes.md"):
        (store / name).write_text("of somebody")
    before = contents(store)
    to = Objects(f"file://{store}", {})
    with pytest.raises(
        Denied, match=r"holds README\.md, model\.safetensors, which this run has not"
    ):
        upload.begin(to, result, places)
    assert (contents(store), places.exists()) == (before, False)
    for name in ("README.md", "model.safetensors"):
        (store / name).unlink()
    upload.begin(to, result, places)
    upload.push(to, result, QUICK)
    (result / "README.md").write_text("another card")
    upload.begin(to, result, places)  # it is its own place by now
    upload.push(to, result, QUICK)
    assert contents(store) == contents(result) | {"notes.md": b"of somebody"}

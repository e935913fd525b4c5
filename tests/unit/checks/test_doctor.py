"""The doctor's findings, each where it is and where it is not, by real means: mounts and networks
of a namespace of their own, servers and ports on loopback, processes that add up."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from envtune.checks.doctor import allreduce, examine, gpus, network, place, subject, wanted
from envtune.checks.doctor.examine import Check
from envtune.checks.doctor.subject import Subject
from envtune.checks.doctor.table import CODES, Sign, found, well
from envtune.errors import Exit
from envtune.machine import hardware
from envtune.machine.hardware import Gpu, Machine
from envtune.settings import sources
from tests.harness import NOWHERE, Quiet, free_port, serving
from tests.hub_standin import Repo, hub
from tests.stores import user
from tests.test_trust import behind_tls
from tests.unit.builders import GIB, HOPPER, TURING, write_model

SECRET = "hf_PlantedPlanted0123456789"
OFFLINE = {"HF_HUB_OFFLINE": "1"}


def looked(folder: Path, **environ: str) -> Subject:
    """The subject of an environment in a folder of its own."""
    here = {"SFT_OUTPUTS_DIR": str(folder / "outputs"), "SFT_LOGS_DIR": str(folder / "logs")}
    given = {"HOME": str(folder), "PATH": os.environ["PATH"], **here, **environ}
    return subject.read(sources.read((), given))


def codes(signs: Any) -> list[str]:
    return [sign.code for sign in signs if sign.code]


def only(signs: Any) -> Sign:
    [sign] = signs
    assert isinstance(sign, Sign)
    return sign


# --- the container, in mount namespaces ------------------------------------------------------

LOOKS = """
import json, sys
from pathlib import Path
from dataclasses import replace
from envtune.checks.doctor import network, place
from envtune.checks.doctor.subject import Subject
from envtune.machine import hardware
from envtune.settings.typed import Settings
folder, machine = Path.cwd(), hardware.probe({})
subject = Subject(environ=ENVIRON, machine=machine, settings=Settings(), root=folder / "root",
                  outputs=folder / "runs/outputs", logs=folder / "logs", caches=folder / "hub")
print(json.dumps([[s.code, s.evidence] for s in CHECK(subject)]))
"""


def apart(
    folder: Path, script: str, check: str, environ: dict[str, str] | None = None, flag: str = "-m"
) -> list[tuple[str, str]]:
    """Code and evidence of a check's signs where a shell script has mounted something."""
    program = LOOKS.replace("ENVIRON", repr(environ or {})).replace("CHECK", check)
    words = ["unshare", flag, "sh", "-ec", f'{script}\nexec "$0" -c "$1"', sys.executable, program]
    if subprocess.run([*words[:2], "true"], capture_output=True, check=False).returncode:
        pytest.skip("nobody may mount here")
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if "mount:" in done.stderr:
        pytest.skip(f"this cannot be mounted here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return [(code, evidence) for code, evidence in json.loads(done.stdout)]


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A folder with an installation, runs and a cache."""
    for name in ("scripts", "templates", "examples", "src", "docs", "demo"):
        (tmp_path / "root" / name).mkdir(parents=True)
        (tmp_path / "root" / name / "file").touch()
    for name in ("autorun.sh", "configure.py"):
        (tmp_path / "root" / "scripts" / name).touch()
    for name in ("runs", "logs", "hub"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("script", "environ", "wanted", "word"),
    [
        ("", {}, "", "nothing is mounted over"),
        ("mount -t tmpfs none root/examples", {}, "D-MNT-01", "hides examples"),
        ("mount -t tmpfs none root", {}, "D-MNT-01", "scripts/autorun.sh"),
        ("mount --bind root/docs root/docs", {}, "", "hides nothing that is needed"),
        ("rm -r root/demo", {"FLAVOR": "cpu"}, "D-MNT-01", "lacks demo"),
    ],
)
def test_a_volume_over_the_installation_is_told_with_what_it_hides(
    room: Path, script: str, environ: dict[str, str], wanted: str, word: str
) -> None:
    code, evidence = apart(room, script, "place.mounted", environ)[0]
    assert (code, word in evidence) == (wanted, True), evidence


@pytest.mark.parametrize(
    ("script", "environ", "told"),
    [
        ("mount -t tmpfs none hub", OFFLINE, True),
        ("mount -t tmpfs none hub; mkdir hub/models--acme--tiny", OFFLINE, False),
        ("mount -t tmpfs none hub", {}, False),
    ],
)
def test_an_empty_volume_over_the_cache_is_told_where_nothing_may_be_fetched(
    room: Path, script: str, environ: dict[str, str], told: bool
) -> None:
    seen = apart(room, script, "place.mounted", environ)
    assert ("D-MNT-02" in [code for code, _ in seen]) == told


def test_runs_in_the_containers_own_layer_are_told(room: Path) -> None:
    layer = (
        "mount -t tmpfs none runs; cd runs; mkdir l u w m; cd ..; "
        "mount -t overlay overlay -o lowerdir=runs/l,upperdir=runs/u,workdir=runs/w runs/m; "
        "mount --move runs/m logs; mount --bind logs runs"
    )
    seen = apart(room, layer, "place.mounted", {"FLAVOR": "cpu"})
    assert "D-MNT-03" in [code for code, _ in seen]
    volume = apart(room, "mount -t tmpfs none runs", "place.mounted", {"FLAVOR": "cpu"})
    assert "D-MNT-03" not in [code for code, _ in volume]


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("", {""}),
        ("mount -t tmpfs -o ro none runs", {"D-VOL-01", ""}),
        ("mount -t tmpfs -o ro none logs", {"D-VOL-01", ""}),
        ("mount -t tmpfs -o ro none hub", {"D-VOL-02", ""}),
        ("mount -t tmpfs -o size=512k none runs", {"D-VOL-03", ""}),
    ],
)
def test_each_folder_has_to_keep_what_is_written(room: Path, script: str, wanted: set[str]) -> None:
    assert {code for code, _ in apart(room, script, "place.folders")} == wanted
    assert not list(room.rglob(".envtune-*"))


def test_a_volume_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:  # in the place of a file system that has none
        raise OSError(37, "No locks available")

    here = looked(tmp_path)
    monkeypatch.setattr(place.fcntl, "flock", none)
    assert set(codes(place.folders(here))) == {"D-VOL-04"}


@pytest.mark.parametrize(
    ("script", "gpus", "wanted"),
    [
        ("mount -t tmpfs -o size=64m none /dev/shm", 0, "D-SHM-02"),
        ("mount -t tmpfs -o size=64m none /dev/shm", 2, "D-SHM-01"),
        ("mount -t tmpfs -o size=1g none /dev/shm", 2, ""),
        ("mount -t tmpfs -o ro none /dev/shm", 0, "D-SHM-03"),
        ("mount -t tmpfs none /dev", 0, "D-SHM-03"),
    ],
)
def test_shared_memory_is_judged_by_its_size(
    room: Path, script: str, gpus: int, wanted: str
) -> None:
    pretended = (
        f"replace(s, machine=replace(s.machine, gpus=(hardware.Gpu('a', 1, (9, 0)),) * {gpus}))"
    )
    seen = apart(room, script, f"(lambda s: place.shared_memory({pretended}))")
    assert [code for code, _ in seen] == [wanted]


@pytest.mark.parametrize(
    ("option", "wanted"),
    [("size=64m", "D-DSK-01"), ("size=2g,nr_inodes=500", "D-DSK-02"), ("size=2g", "D-DSK-03")],
)
def test_a_disk_that_is_nearly_full_is_told_with_its_bytes(
    room: Path, option: str, wanted: str
) -> None:
    seen = apart(room, f"mount -t tmpfs -o {option} none runs", "place.disk")
    told = [evidence for code, evidence in seen if code == wanted]  # this machine's own may be too
    assert any(evidence.startswith(f"{room}/runs/outputs") for evidence in told)


def test_a_disk_with_room_is_well(room: Path) -> None:
    script = "mount -t tmpfs -o size=40g none runs; mount -t tmpfs -o size=40g none hub"
    assert [code for code, _ in apart(room, script, "place.disk")] == ["", ""]


def cgroup(folder: Path, limit: str, used: int, kills: int) -> Path:
    """The files of a cgroup v2 as the kernel writes them."""
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {GIB}\n")
    (folder / "memory.events").write_text(f"max 0\noom_kill {kills}\n")
    return folder


@pytest.mark.parametrize(
    ("group", "wanted"),
    [
        ((4 * GIB, GIB, 0), []),
        ((4 * GIB, 4 * GIB, 0), []),  # 1 GiB of it are files
        ((2 * GIB, 2 * GIB + 2**29, 0), ["D-MEM-01"]),
        ((8 * GIB, GIB, 3), ["D-MEM-02"]),
    ],
)
def test_memory_is_what_the_limit_leaves(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    group: tuple[int, int, int],
    wanted: list[str],
) -> None:
    limit, used, kills = group
    monkeypatch.setattr(hardware, "_CGROUP", cgroup(tmp_path, str(limit), used, kills))
    assert codes(place.memory(looked(tmp_path))) == wanted


# --- GPUs ------------------------------------------------------------------------------------


def test_a_missing_gpu_is_told_where_one_is_asked_for(tmp_path: Path) -> None:
    if hardware.probe({}).gpus:
        pytest.skip("a GPU is visible here")
    assert only(gpus.gpus(looked(tmp_path))).state == "skipped"
    assert codes(gpus.gpus(looked(tmp_path, SFT_DEVICE="cuda"))) == ["D-GPU-01"]
    assert codes(gpus.gpus(looked(tmp_path, FLAVOR="cuda"))) == ["D-GPU-01"]
    assert codes(gpus.gpus(looked(tmp_path, FLAVOR="cuda", SFT_DEVICE="cpu"))) == []


def test_a_driver_that_does_not_answer_is_told_in_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pynvml")
    if hardware.probe({}).gpus:
        pytest.skip("a GPU answers here")
    monkeypatch.setattr(gpus, "_CONTROL", tmp_path)  # as if the device were there
    sign = only(gpus.gpus(looked(tmp_path)))
    assert sign.code == "D-GPU-02"
    assert "NVML" in sign.evidence


BUILT, OLDER = (13, 0), (12, 4)


@pytest.mark.parametrize(
    ("machine", "used", "wanted"),
    [
        (replace(HOPPER, driver=BUILT, built_for=BUILT), 0, []),
        (replace(HOPPER, driver=OLDER, built_for=BUILT), 0, ["D-GPU-03"]),
        (
            Machine((Gpu("Tesla V100", 16 * GIB, (7, 0)),), 8, GIB, driver=BUILT, built_for=BUILT),
            0,
            ["D-GPU-04"],
        ),
        (replace(TURING, driver=BUILT, built_for=None), 0, ["D-GPU-05"]),
        (replace(HOPPER, driver=BUILT, built_for=BUILT), 9 * GIB, ["D-GPU-06"]),
    ],
)
def test_a_gpu_is_judged_without_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: Machine, used: int, wanted: list[str]
) -> None:
    pytest.importorskip("torch")
    # NVML's answer, of a GPU that is not here.
    monkeypatch.setattr(hardware, "taken_on_gpus", lambda: [("a GPU", used, 80 * GIB)])
    signs = list(gpus.gpus(replace(looked(tmp_path), machine=machine)))
    assert codes(signs) == wanted
    assert (
        signs[-1].evidence.startswith("NVIDIA")
        or "V100" in signs[-1].evidence
        or "T4" in signs[-1].evidence
    )


# --- processes that add up -------------------------------------------------------------------


def test_two_real_processes_add_up_over_gloo(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the engines are not here")
    sign = only(allreduce.processes(looked(tmp_path, HF_TOKEN=SECRET)))
    assert sign.state == "well", sign.evidence
    assert "gloo: 2 processes added up" in sign.evidence


def test_a_process_that_fails_is_named_with_its_last_line(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the engines are not here")
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\ncase "$3" in */1.json) echo "no route to $HF_TOKEN loopback"; exit 1;; esac\n'
        "exec sleep 600\n"
    )
    python.chmod(0o755)
    here = replace(looked(tmp_path, HF_TOKEN=SECRET), python=str(python))
    sign = only(allreduce.processes(here))
    assert sign.code == "D-RED-01"
    # The token that the child would have shown was not told to it.
    assert sign.evidence == "gloo: process 1 of 2 ended with no sum: no route to  loopback"


# --- the network -----------------------------------------------------------------------------


def test_nodes_that_contradict_each_other_are_told(tmp_path: Path) -> None:
    assert only(network.nodes(looked(tmp_path))).state == "skipped"
    signs = network.nodes(looked(tmp_path, NNODES="2", NODE_RANK="2", MASTER_ADDR="a"))
    assert codes(signs) == ["D-RDV-01"]


def test_node_0_has_to_have_its_port(tmp_path: Path) -> None:
    port = free_port()
    nodes = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    assert "D-RDV-03" not in codes(network.nodes(looked(tmp_path, **nodes)))
    with socket.create_server(("127.0.0.1", port)):
        assert "D-RDV-03" in codes(network.nodes(looked(tmp_path, **nodes)))


@pytest.mark.parametrize(
    ("host", "wanted"),
    [("no-such-host.invalid", "D-RDV-02"), ("255.255.255.255", "D-RDV-04"), ("127.0.0.1", "")],
)
def test_the_way_to_node_0_is_tried(tmp_path: Path, host: str, wanted: str) -> None:
    given = {"NNODES": "2", "NODE_RANK": "1", "MASTER_PORT": str(free_port()), "MASTER_ADDR": host}
    told = [sign for sign in network.nodes(looked(tmp_path, **given)) if sign.code != "D-RDV-05"]
    assert [sign.code for sign in told] == [wanted]


def test_a_host_whose_name_leads_nowhere_is_told(room: Path) -> None:
    environ = {"NNODES": "2", "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    script = "hostname no-such-host.invalid"
    seen = [code for code, _ in apart(room, script, "network.nodes", environ, flag="--uts")]
    assert "D-RDV-05" in seen
    seen = [
        code for code, _ in apart(room, "hostname localhost", "network.nodes", environ, "--uts")
    ]
    assert "D-RDV-05" not in seen


def test_a_proxy_is_tried_and_its_password_not_shown(tmp_path: Path) -> None:
    assert only(network.proxies(looked(tmp_path))).state == "skipped"
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://ada:{SECRET}@127.0.0.1:{server.getsockname()[1]}"
        sign = only(network.proxies(looked(tmp_path, HTTPS_PROXY=address)))
        assert sign.state == "well"
    gone = only(network.proxies(looked(tmp_path, https_proxy=address)))
    assert gone.code == "D-PRX-01"
    assert SECRET not in sign.evidence + gone.evidence


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, []),
        ({"SFT_CA_BUNDLE": "rows.txt"}, ["D-TLS-01"]),
        ({"SSL_CERT_FILE": "/no/such/file.pem"}, ["D-TLS-01"]),
        ({"SFT_INSECURE_TLS": "true"}, ["D-TLS-03"]),
    ],
)
def test_certificates_are_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], wanted: list[str]
) -> None:
    (tmp_path / "rows.txt").write_text("no certificate")
    monkeypatch.chdir(tmp_path)
    assert codes(network.trust(looked(tmp_path, **environ))) == wanted


def test_the_hub_answers_or_the_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub() as made:
        assert only(network.the_hub(looked(tmp_path, HF_ENDPOINT=made.url))).state == "well"
    gone = only(network.the_hub(looked(tmp_path, HF_ENDPOINT=NOWHERE)))
    assert (gone.code, "refused" in gone.evidence) == ("D-HUB-01", True)
    assert (
        only(network.the_hub(looked(tmp_path, HF_ENDPOINT=NOWHERE, **OFFLINE))).state == "skipped"
    )
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with behind_tls(tmp_path) as company:
        strange = only(network.the_hub(looked(tmp_path, HF_ENDPOINT=company.url)))
        assert strange.code == "D-TLS-02"
        monkeypatch.setenv("SSL_CERT_FILE", str(company.bundle))
        assert only(network.the_hub(looked(tmp_path, HF_ENDPOINT=company.url))).state == "well"


@contextmanager
def at(ahead: timedelta | None) -> Iterator[str]:
    """A server whose clock is `ahead` of this one, or that tells no time."""

    class Clock(Quiet):
        def do_HEAD(self) -> None:
            self.send_response_only(200)
            if ahead is not None:
                self.send_header("Date", format_datetime(datetime.now(UTC) + ahead, usegmt=True))
            self.end_headers()

    with serving(Clock) as url:
        yield url


@pytest.mark.parametrize(
    ("ahead", "wanted", "word"),
    [
        (timedelta(0), "", "as http://127.0.0.1"),
        (timedelta(seconds=45), "", "as"),
        (timedelta(minutes=3), "D-CLK-01", "behind"),
        (timedelta(minutes=-3), "D-CLK-01", "ahead of"),
        (timedelta(hours=1), "D-CLK-02", "behind"),
        (timedelta(days=-400), "D-CLK-02", "ahead of"),
        (None, "", "tells no time"),
    ],
)
def test_the_clock_is_compared_with_the_servers(
    tmp_path: Path, ahead: timedelta | None, wanted: str, word: str
) -> None:
    with at(ahead) as url:
        sign = only(network.clock(looked(tmp_path, HF_ENDPOINT=url)))
    assert (sign.code, word in sign.evidence) == (wanted, True), sign.evidence


# --- what is set -----------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path) -> dict[str, str]:
    write_model(tmp_path / "tiny")
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Say yes.", "output": "yes"}\n' * 40)
    return {
        "AXOLOTL_BASE_MODEL": str(tmp_path / "tiny"),
        "AXOLOTL_DATASETS__0__PATH": str(tmp_path / "rows.jsonl"),
        "AXOLOTL_DATASETS__0__TYPE": "alpaca",
        "SFT_DEVICE": "cpu",
    }


def test_what_is_set_and_well_is_told_so(tmp_path: Path, configured: dict[str, str]) -> None:
    here = looked(tmp_path, **configured)
    for look in (wanted.settings, wanted.repositories_of, wanted.rows):
        assert only(look(here)).state == "well", only(look(here)).evidence


def test_where_nothing_is_set_nothing_is_asked(tmp_path: Path) -> None:
    here = looked(tmp_path)
    for look in (wanted.settings, wanted.repositories_of, wanted.rows, wanted.tracked):
        assert only(look(here)).state == "skipped"


def test_each_setting_that_is_refused_is_a_finding(
    tmp_path: Path, configured: dict[str, str]
) -> None:
    wrong = {"AXOLOTL_LORA_R": "many", "AXOLOTL_LEARNIN_RATE": "1"}
    signs = list(wanted.settings(looked(tmp_path, **configured, **wrong)))
    assert codes(signs) == ["D-CFG-01"] * 2
    assert any("AXOLOTL_LEARNING_RATE" in sign.evidence + sign.fix for sign in signs)
    assert only(wanted.rows(looked(tmp_path, **configured, **wrong))).state == "skipped"


def test_a_row_that_is_broken_is_named_with_its_line(
    tmp_path: Path, configured: dict[str, str]
) -> None:
    with (tmp_path / "rows.jsonl").open("a") as stream:
        stream.write('{"instruction": nothing}\n')
    signs = list(wanted.rows(looked(tmp_path, **configured)))
    assert set(codes(signs)) == {"D-DAT-01"}
    assert "rows.jsonl:41" in signs[0].evidence
    assert signs[0].exit == Exit.DATA


ADA, READER = "hf_AdaAda0123456789", "hf_ReadRead0123456789"


@pytest.mark.parametrize(
    ("more", "wanted_codes"),
    [
        ({"HF_TOKEN": ADA}, []),
        ({"HF_TOKEN": SECRET}, ["D-HUB-02"]),
        ({"HF_TOKEN": ADA, "AXOLOTL_BASE_MODEL": "acme/none"}, ["D-HUB-03"]),
        ({"HF_TOKEN": ADA, "AXOLOTL_DATASETS__0__PATH": "acme/none"}, ["D-HUB-03"]),
        ({"HF_TOKEN": ADA, "SFT_PUSH_TO": "ada/mine"}, []),
        ({"HF_TOKEN": READER, "SFT_PUSH_TO": "ada/mine"}, ["D-HUB-04"]),
    ],
)
def test_each_repository_is_asked_for(
    tmp_path: Path, configured: dict[str, str], more: dict[str, str], wanted_codes: list[str]
) -> None:
    with hub() as made:
        made.repos = {("model", "acme/tiny"): Repo(tmp_path / "tiny")}
        made.users = {ADA: user("ada", "write"), READER: user("ada", "read")}
        names = {"AXOLOTL_BASE_MODEL": "acme/tiny", "HF_ENDPOINT": made.url}
        signs = list(wanted.repositories_of(looked(tmp_path, **{**configured, **names, **more})))
    assert codes(signs) == wanted_codes, signs
    assert SECRET not in str(signs)


@pytest.mark.parametrize(
    ("given", "state"),
    [({}, "skipped"), ({"HF_TOKEN": ADA}, "well"), ({"HF_TOKEN": SECRET}, "problem")],
)
def test_a_token_is_tried_where_nothing_else_is_set(
    tmp_path: Path, given: dict[str, str], state: str
) -> None:
    with hub() as made:
        made.users = {ADA: user("ada", "write")}
        sign = only(wanted.repositories_of(looked(tmp_path, HF_ENDPOINT=made.url, **given)))
    assert sign.state == state, sign.evidence


def test_a_tracker_that_refuses_the_key_is_told(tmp_path: Path) -> None:
    class Refusing(Quiet):
        def do_POST(self) -> None:
            self.send_response(self.status)
            self.end_headers()
            self.wfile.write(b'{"data": {"viewer": {"username": "ada"}}}')

        status = 401

    with serving(Refusing) as url:
        here = looked(tmp_path, WANDB_API_KEY=SECRET, WANDB_BASE_URL=url)
        sign = only(wanted.tracked(here))
        assert (sign.code, sign.state) == ("D-TRK-02", "warning")
        assert SECRET not in sign.evidence
        Refusing.status = 200
        assert only(wanted.tracked(here)).state == "well"


def test_a_tracker_that_is_not_installed_is_told(
    tmp_path: Path, configured: dict[str, str]
) -> None:
    here = looked(tmp_path, **configured, AXOLOTL_USE_TRACKIO="true")
    sign = only(wanted.tracked(here))
    assert (sign.code, sign.exit) == ("D-TRK-01", Exit.CONFIG)


# --- all together ----------------------------------------------------------------------------


def test_a_check_that_hangs_or_fails_is_a_finding_and_the_others_stand(tmp_path: Path) -> None:
    gone = threading.Event()

    def hangs(_: Subject) -> Iterator[Sign]:
        gone.wait()
        yield well("")

    def fails(_: Subject) -> Iterator[Sign]:
        yield found("D-CLK-01", "an hour")
        raise ZeroDivisionError("by nought")

    checks = [
        Check("hangs", hangs, 0.2),
        Check("fails", fails),
        Check("goes", lambda _: [well("yes")]),
    ]
    every = examine.examine(looked(tmp_path), checks)
    gone.set()
    assert [sign.code for one in every for sign in one.seen] == [
        "D-DOC-01",
        "D-CLK-01",
        "D-DOC-02",
        "",
    ]
    assert examine.exit_of(every) == Exit.HARDWARE


def test_data_on_a_volume_that_hangs_ends_nothing(
    tmp_path: Path, configured: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hangs(*_: object) -> None:  # in the place of a volume whose server is gone
        time.sleep(600)

    monkeypatch.setattr(subject, "_PATIENCE", 0.2)
    monkeypatch.setattr(subject.look, "look", hangs)
    here = looked(tmp_path, **configured)
    assert codes(wanted.settings(here)) == ["D-DOC-01"]
    assert only(wanted.rows(here)).state == "skipped"
    assert here.machine.cores == hardware.cores()


def test_a_machine_whose_gpus_cannot_be_counted_is_looked_at_all_the_same(
    tmp_path: Path, configured: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object) -> None:  # in the place of a GPU that has fallen off the bus
        raise RuntimeError("GPU is lost")

    monkeypatch.setattr(hardware, "probe", lost)
    assert looked(tmp_path).machine.cores == hardware.cores()
    assert codes(wanted.settings(looked(tmp_path, **configured))) == ["D-DOC-02"]


def test_only_what_ends_a_start_is_in_the_exit_code(tmp_path: Path) -> None:
    def seen(*signs: Sign) -> Exit:
        check = Check("one", lambda _: signs)
        return examine.exit_of(examine.examine(looked(tmp_path), [check]))

    warning = next(code for code, row in CODES.items() if row.exit == Exit.DONE)
    assert seen(well("yes"), found(warning, "a little")) == Exit.DONE
    assert seen(found(warning, "a little"), found("D-DSK-01", "full")) == Exit.DISK

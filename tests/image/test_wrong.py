"""Wrong deployments: each ends in clear words, and nothing else, and the right exit code."""

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hub_standin import Repo, hub
from tests.image.containers import HOME, IMAGE, Container, as_root, engine

ADA = "hf_AdaAda0123456789"

DRIVER = Path(__file__).with_name("driver_standin.sh")
Ends = Callable[[Container, int, str], None]


@pytest.fixture
def word(tmp_path: Path) -> Path:
    """Where Kubernetes looks for the last word, mounted at /dev/termination-log."""
    file = tmp_path / "termination-log"
    file.touch()
    file.chmod(0o666)
    return file


@pytest.fixture
def ends(word: Path) -> Ends:
    """Starts a container that has to end with that code and in these words: nothing else is
    complained of, and they are the last word, whole."""

    def run(container: Container, code: int, words: str) -> None:
        container.volumes = [*container.volumes, f"{word}:/dev/termination-log"]
        ended = container.run(asked=f" ERROR {re.escape(words.splitlines()[0])}$")
        assert ended.code == code, ended.err
        assert len(ended.told) == 1, ended.err
        assert ended.err.endswith(f" ERROR {words}\n"), ended.err
        assert word.read_text() == words

    return run


CANNOT = "cannot be written by uid {} ({} forbids it); mount a writable volume there or name another folder"


def test_a_wrong_name(demo: dict[str, str], ends: Ends) -> None:
    line = "AXOLOTL_LEARNIN_RATE: no such setting; did you mean AXOLOTL_LEARNING_RATE?"
    ends(Container({**demo, "AXOLOTL_LEARNIN_RATE": "1e-4"}), 1, line)


def test_a_volume_over_workspace_hides_nothing(demo: dict[str, str]) -> None:
    """The image needs nothing that lies there: what was a wrong deployment is none."""
    ended = Container(
        demo, flags=["--tmpfs", "/workspace:mode=1777"], command=["envtune", "check"]
    ).run()
    assert ended.code == 0


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stand-in for NVIDIA's management library: no machine of the tests has a GPU."""
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("nvml_standin.c")
    library = folder / "libnvidia-ml.so.1"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    folder.chmod(0o755)
    return folder


def _gpus(nvml: Path, demo: dict[str, str], count: int, cuda: int) -> Container:
    told = {"NVML_STANDIN_GPUS": str(count), "NVML_STANDIN_CUDA": str(cuda)}
    volumes = [f"{nvml}:/nvml:ro", "/dev/null:/dev/nvidiactl"]
    environ = {**demo, **told, "SFT_DEVICE": "auto", "LD_LIBRARY_PATH": "/nvml"}
    return Container(environ, volumes, ["--shm-size", "64m"])


def test_shared_memory_of_64_mb_between_gpus(nvml: Path, demo: dict[str, str], ends: Ends) -> None:
    line = (
        "/dev/shm: has 64 MiB and 2 GPUs talk through it; start the container with --shm-size=8g, "
        "in Kubernetes with an emptyDir of medium Memory"
    )
    ends(_gpus(nvml, demo, 2, 13000), 1, line)


def test_a_server_on_a_cpu_from_the_image_for_gpus(
    demo: dict[str, str], flavor: str, ends: Ends
) -> None:
    if flavor != "cuda":
        pytest.skip("the vLLM of this flavour works on a CPU")
    line = (
        "SFT_SERVE: needs a vLLM that works on a CPU, where this run is; the one here is built for "
        "GPUs. The cpu flavour of the image has one, or SFT_VLLM_VENV names the folder of another"
    )
    ends(Container({**demo, "SFT_SERVE": "true"}), 1, line)


def test_vllm_tells_its_flags_where_a_driver_seems_to_be(nvml: Path, flavor: str) -> None:
    """Its parser asks for a device. The driver's library is a stand-in that knows none, made of
    the names that vLLM's and torch's libraries look for, by the image's own compiler."""
    if flavor != "cuda":
        pytest.skip("the vLLM of this flavour asks for no driver")
    ended = Container(
        {"NVML_STANDIN_GPUS": "1", "NVML_STANDIN_CUDA": "13000", "LD_LIBRARY_PATH": "/nvml:/tmp"},
        [f"{nvml}:/nvml:ro", "/dev/null:/dev/nvidiactl", f"{DRIVER}:/driver.sh:ro"],
        command=["bash", "/driver.sh", f"{HOME}/.venv-serve"],
    ).run(asked="^ +(Warning|.*WARNING)")  # of the help's own text
    assert ended.code == 0, ended.err
    assert "--max-model-len" in ended.out


def test_shared_memory_of_64_mb_for_vllm_on_a_cpu(
    demo: dict[str, str], flavor: str, ends: Ends
) -> None:
    if flavor != "cpu":
        pytest.skip("the vLLM of this flavour does not start on a CPU")
    line = (
        "SFT_PARITY: vLLM needs 512 MiB of /dev/shm on a CPU and 64 are there; start the container "
        "with --shm-size=1g, or set SFT_PARITY=off and leave the proof out"
    )
    ends(Container({**demo, "SFT_PARITY": "auto"}, flags=["--shm-size", "64m"]), 1, line)


def test_a_driver_that_is_too_old(
    nvml: Path, demo: dict[str, str], tmp_path: Path, ends: Ends
) -> None:
    """torch's own word of its CUDA is replaced: here it is the CPU build."""
    file = f"{HOME}/.venv/lib/python3.11/site-packages/torch/version.py"
    built = Container(command=["cat", file]).run().out
    version = tmp_path / "version.py"
    version.write_text(built.replace("cuda: Optional[str] = None", "cuda: Optional[str] = '13.0'"))
    container = _gpus(nvml, demo, 1, 11040)
    container.volumes = [*container.volumes, f"{version}:{file}:ro"]
    line = (
        "the GPU's driver: is too old: it knows CUDA 11.4 and torch here is built for CUDA 13.0; "
        "take a host whose driver knows CUDA 13"
    )
    ends(container, 1, line)


def test_an_output_that_cannot_be_written(demo: dict[str, str], tmp_path: Path, ends: Ends) -> None:
    tmp_path.chmod(0o755)
    container = Container({**demo, "SFT_OUTPUTS_DIR": "/out"}, [f"{tmp_path}:/out:ro"])
    uid = 0 if as_root() else 10001
    ends(container, 1, f"SFT_OUTPUTS_DIR: /out {CANNOT.format(uid, '/out')}")


def test_no_gpu_in_the_image_for_gpus(demo: dict[str, str], ends: Ends) -> None:
    line = (
        "SFT_DEVICE: is not set and no GPU is visible in an image made for one; start it with "
        "--gpus all, or set SFT_DEVICE=cpu to train on the CPU"
    )
    ends(Container({**demo, "FLAVOR": "cuda", "SFT_DEVICE": "auto"}), 1, line)


@pytest.fixture
def asked_hub(tmp_path: Path) -> "object":
    """A Hub with a gated model, on loopback."""
    model = tmp_path / "model"
    container = engine("create", IMAGE).stdout.strip()
    engine("cp", f"{container}:{HOME}/demo/tiny-llama", str(model))
    engine("rm", container)
    with hub() as made:
        gated = Repo(model, frozenset(), "You are not in the authorized list.")
        made.repos = {("model", "acme/tiny"): Repo(model), ("model", "acme/gated"): gated}
        token = {"displayName": "test", "role": "read"}
        made.users = {
            ADA: {"type": "user", "name": "ada", "orgs": [], "auth": {"accessToken": token}}
        }
        yield made
    shutil.rmtree(model)


@pytest.mark.parametrize(
    ("asked", "line"),
    [
        (
            {"AXOLOTL_BASE_MODEL": "acme/tiny", "HF_TOKEN": "hf_Wrong0123456789"},
            "HF_TOKEN: the token was refused by {0}; make a new one on {0}/settings/tokens",
        ),
        (
            {"AXOLOTL_BASE_MODEL": "acme/gated", "HF_TOKEN": ADA},
            "AXOLOTL_BASE_MODEL: acme/gated is gated and the licence is not accepted by ada; open "
            "{0}/acme/gated and accept it",
        ),
    ],
    ids=["401", "licence not accepted"],
)
def test_the_hub_says_no(
    asked_hub, asked: dict[str, str], line: str, demo: dict[str, str], ends: Ends
) -> None:  # type: ignore[no-untyped-def]
    environ = {**demo, **asked, "HF_ENDPOINT": asked_hub.url}
    ends(Container(environ, flags=["--network", "host"]), 4, line.format(asked_hub.url))


def test_a_disk_that_is_full(demo: dict[str, str], word: Path) -> None:
    """Which file is the one too many, and so what the engine says of it, is chance; that the
    disk will not do is told before."""
    full = ["--tmpfs", "/workspace:size=3m,mode=1777"]
    said = "No space left|the disk (is|will be) full|are free|the engine's last lines|^Traceback"
    ended = Container(demo, [f"{word}:/dev/termination-log"], full).run(asked=said)
    assert ended.code == 200, ended.err
    last = word.read_text()
    resumes = r".*; free space under SFT_OUTPUTS_DIR; the next start resumes( \(log: .*\))?"
    assert re.fullmatch(resumes, last), last
    assert ended.err.endswith(f" ERROR {last}\n"), ended.err


def test_a_user_who_is_not_of_the_group(demo: dict[str, str], ends: Ends) -> None:
    cannot = CANNOT.format(12345, "/workspace")
    lines = [
        f"SFT_OUTPUTS_DIR: /workspace/outputs {cannot}",
        f"SFT_LOGS_DIR: /workspace/logs {cannot}",
    ]
    ends(Container(demo, flags=["--user", "12345:12345"]), 1, "\n".join(lines))


def test_a_port_that_is_taken(demo: dict[str, str], flavor: str, ends: Ends) -> None:
    if flavor != "cpu":
        pytest.skip("the vLLM of this flavour does not start on a CPU, which is told as well")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environ = {**demo, "SFT_SERVE": "true", "SFT_SERVE_PORT": port}
        container = Container(environ, flags=["--network", "host", "--shm-size", "1g"])
        ends(container, 1, f"SFT_SERVE_PORT: {port} of 127.0.0.1 is in use; choose another port")

"""Ten wrong deployments: each ends in one clear line and the right exit code."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.hub_standin import Repo, hub
from tests.image.containers import HOME, IMAGE, Container, Ended, engine

ADA = "hf_AdaAda0123456789"


def one_line(ended: Ended, code: int, line: str) -> None:
    """Its last word is that line, and nothing else complains."""
    errors = [said for said in ended.err.splitlines() if "ERROR" in said]
    assert ended.code == code, ended.err
    assert len(errors) == 1, ended.err
    assert line in errors[0]


def test_a_wrong_name_is_the_last_word_where_kubernetes_looks_for_it(
    demo: dict[str, str], tmp_path: Path
) -> None:
    word = tmp_path / "termination-log"
    word.touch()
    word.chmod(0o666)
    environ = {**demo, "AXOLOTL_LEARNIN_RATE": "1e-4"}
    ended = Container(environ, [f"{word}:/dev/termination-log"]).run(asked="AXOLOTL_LEARNIN_RATE")
    told = "AXOLOTL_LEARNIN_RATE: no such setting; did you mean AXOLOTL_LEARNING_RATE?"
    one_line(ended, 1, told)
    assert word.read_text().strip() == told


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


def test_shared_memory_of_64_mb_between_gpus(nvml: Path, demo: dict[str, str]) -> None:
    ended = _gpus(nvml, demo, 2, 13000).run(asked="--shm-size=8g")
    one_line(ended, 1, "/dev/shm: has 64 MiB and 2 GPUs talk through it; start the container")


def test_shared_memory_of_64_mb_for_vllm_on_a_cpu(demo: dict[str, str]) -> None:
    ended = Container({**demo, "SFT_PARITY": "auto"}, flags=["--shm-size", "64m"]).run(asked="shm")
    one_line(ended, 1, "SFT_PARITY: vLLM needs 512 MiB of /dev/shm on a CPU and 64 are there")


def test_a_driver_that_is_too_old(nvml: Path, demo: dict[str, str], tmp_path: Path) -> None:
    """torch's own word of its CUDA is replaced: here it is the CPU build."""
    file = f"{HOME}/.venv/lib/python3.11/site-packages/torch/version.py"
    built = Container(command=["cat", file]).run().out
    version = tmp_path / "version.py"
    version.write_text(built.replace("cuda: Optional[str] = None", "cuda: Optional[str] = '13.0'"))
    container = _gpus(nvml, demo, 1, 11040)
    container.volumes = [*container.volumes, f"{version}:{file}:ro"]
    ended = container.run(asked="is too old")
    one_line(
        ended,
        1,
        "the GPU's driver: is too old: it knows CUDA 11.4 and torch here is built for CUDA 13.0",
    )


def test_an_output_that_cannot_be_written(demo: dict[str, str], tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    ended = Container({**demo, "SFT_OUTPUTS_DIR": "/out"}, [f"{tmp_path}:/out:ro"]).run(
        asked="/out"
    )
    one_line(ended, 1, "SFT_OUTPUTS_DIR: /out cannot be written by uid")


def test_no_gpu_in_the_image_for_gpus(demo: dict[str, str]) -> None:
    ended = Container({**demo, "FLAVOR": "cuda", "SFT_DEVICE": "auto"}).run(
        asked="no GPU is visible"
    )
    one_line(ended, 1, "SFT_DEVICE: is not set and no GPU is visible in an image made for one")


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
    ("model", "token", "line"),
    [
        ("acme/tiny", "hf_Wrong0123456789", "HF_TOKEN"),
        ("acme/gated", ADA, "acme/gated is gated and the licence is not accepted by ada; open"),
    ],
    ids=["401", "licence not accepted"],
)
def test_the_hub_says_no(
    asked_hub, model: str, token: str, line: str, demo: dict[str, str]
) -> None:  # type: ignore[no-untyped-def]
    environ = {**demo, "AXOLOTL_BASE_MODEL": model, "HF_ENDPOINT": asked_hub.url, "HF_TOKEN": token}
    ended = Container(environ, flags=["--network", "host"]).run(asked="HF_TOKEN|licence")
    one_line(ended, 4, line)


def test_a_disk_that_is_full(demo: dict[str, str]) -> None:
    flags = ["--tmpfs", "/workspace:size=3m,mode=1777"]
    ended = Container(demo, flags=flags).run(asked="No space left|disk is full|engine's last lines")
    assert ended.code == 200, ended.err
    assert "free space under SFT_OUTPUTS_DIR; the next start resumes" in ended.err.splitlines()[-1]


def test_a_user_who_is_not_of_the_group(demo: dict[str, str]) -> None:
    ended = Container(demo, flags=["--user", "12345:12345"]).run(asked="cannot be written")
    one_line(ended, 1, "SFT_OUTPUTS_DIR: /workspace/outputs cannot be written by uid 12345")


def test_a_port_that_is_taken(demo: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environ = {**demo, "SFT_SERVE": "true", "SFT_SERVE_PORT": port}
        ended = Container(environ, flags=["--network", "host"]).run(asked="SFT_SERVE_PORT")
    one_line(ended, 1, f"SFT_SERVE_PORT: {port}")

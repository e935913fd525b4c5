"""Train once, assert often: one fixture for each kind of trained artifact."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import stores
from tests.harness import Entrypoint, clean_environ
from tests.hub_standin import Hub


@pytest.fixture(scope="session")
def seed() -> int:
    """The seed of the random moments of this session, printed with every failure.

    TEST_SEED gives it back, to see a failure again.
    """
    return int(os.environ.get("TEST_SEED") or random.SystemRandom().randrange(1_000_000))


@pytest.fixture
def dice(seed: int, request: pytest.FixtureRequest) -> random.Random:
    """A random source of a test's own. `pytest -s` shows the seed."""
    print(f"seed {seed}")
    return random.Random(f"{seed}:{request.node.name}")


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded model and its rows."""
    folder = tmp_path_factory.mktemp("embedded")
    command = [sys.executable, "-m", "envtune.engine.embedded", str(folder)]
    subprocess.run(command, check=True, env=clean_environ())
    return folder


@pytest.fixture(scope="session")
def settings(embedded: Path) -> dict[str, str]:
    """LoRA on the embedded model in 38 short steps."""
    return {
        "AXOLOTL_BASE_MODEL": str(embedded / "tiny-llama"),
        "AXOLOTL_DATASETS__0__PATH": str(embedded / "instructions.jsonl"),
        "AXOLOTL_SEQUENCE_LEN": "128",
        "AXOLOTL_LEARNING_RATE": "5e-3",
        "AXOLOTL_NUM_EPOCHS": "2",
    }


@pytest.fixture
def entrypoint(tmp_path: Path, settings: dict[str, str]) -> Entrypoint:
    """A start in an empty folder with the settings above."""
    return Entrypoint(tmp_path, settings)


@pytest.fixture(scope="session")
def lora(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Path:
    """The folder of a LoRA run that nothing disturbed."""
    return Entrypoint(tmp_path_factory.mktemp("lora"), settings).train()


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Path:
    """The folder of a full fine-tuning that nothing disturbed."""
    more = {"AXOLOTL_ADAPTER": "null", "AXOLOTL_LEARNING_RATE": "1e-3"}
    return Entrypoint(tmp_path_factory.mktemp("full"), settings | more).train()


@pytest.fixture
def new_hub(tmp_path: Path) -> Iterator[Hub]:
    """A Hub that may be written to and holds nothing."""
    with stores.writable_hub(tmp_path / "hub") as made:
        yield made


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """The variables that lead to an S3 with an empty bucket."""
    pytest.importorskip("moto", reason="moto is not here: make test installs it")
    with stores.moto() as environ:
        yield environ

"""Train once, assert often: one fixture for each kind of trained artifact."""

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from tests import forks, stores
from tests.harness import ROOT, Entrypoint, clean_environ, free_port
from tests.hub_standin import Hub


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest file, which the alphabet has near the end, would be waited for."""
    items.sort(key=lambda item: item.path.stem != "test_vllm")


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


# Makes something in a folder and tells which: Once is told a name for it too.
Make = Callable[[Path], Path]
Once = Callable[[str, Make], Path]


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of the tests have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Once:
    """Makes what every process of the tests reads and none changes: the first that wants it."""

    def made(name: str, make: Make) -> Path:
        told = shared / f"{name}.made"
        with FileLock(told.with_suffix(".lock")):
            if not told.exists():
                told.write_text(str(make(tmp_path_factory.mktemp(name))))
        return Path(told.read_text())

    return made


@pytest.fixture(scope="session")
def embedded(once: Once) -> Path:
    """The embedded model and its rows."""

    def make(folder: Path) -> Path:
        command = [sys.executable, "-m", "envtune.engine.embedded", str(folder)]
        subprocess.run(command, check=True, env=clean_environ())
        return folder

    return once("embedded", make)


@pytest.fixture(scope="session")
def settings(embedded: Path) -> dict[str, str]:
    """LoRA on the embedded model in 38 short steps."""
    return {
        "AXOLOTL_BASE_MODEL": str(embedded / "tiny-llama"),
        "AXOLOTL_DATASETS__0__PATH": str(embedded / "instructions.jsonl"),
        "AXOLOTL_SEQUENCE_LEN": "128",
        "AXOLOTL_LEARNING_RATE": "5e-3",
        "AXOLOTL_NUM_EPOCHS": "2",
        "AXOLOTL_MICRO_BATCH_SIZE": "8",
        "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "2",
    }


@pytest.fixture
def entrypoint(tmp_path: Path, settings: dict[str, str]) -> Entrypoint:
    """A start in an empty folder with the settings above."""
    return Entrypoint(tmp_path, settings)


@pytest.fixture(scope="session")
def forking(shared: Path) -> Iterator[dict[str, str]]:
    """What to add to the environment of a start that is about what training does: its training
    is forked from a process that has imported Axolotl. Another start takes the real way."""
    with forks.server(shared) as environ:
        yield environ


@pytest.fixture(scope="session")
def lora(once: Once, settings: dict[str, str]) -> Path:
    """The folder of a LoRA run that nothing disturbed."""
    return once("lora", lambda folder: Entrypoint(folder, settings).train())


@pytest.fixture(scope="session")
def full(once: Once, settings: dict[str, str]) -> Path:
    """The folder of a full fine-tuning that nothing disturbed."""
    more = {"AXOLOTL_ADAPTER": "null", "AXOLOTL_LEARNING_RATE": "1e-3"}
    return once("full", lambda folder: Entrypoint(folder, settings | more).train())


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


@pytest.fixture(scope="session")
def gcs() -> Iterator[dict[str, str]]:
    """Google's protocol by gcp-storage-emulator."""
    pytest.importorskip("gcp_storage_emulator", reason="needs `make test`")
    port = str(free_port())
    command = [sys.executable, "-u", "-m", "gcp_storage_emulator", "start", "--in-memory",
               "--host=127.0.0.1", f"--port={port}", "--default-bucket=bucket"]  # fmt: skip
    with stores.server(command, "All services started"):
        yield {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}


_AZURITE = ROOT / ".azurite" / "node_modules" / ".bin" / "azurite-blob"
# The key of every Azurite, which its documentation prints.
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="session")
def azure() -> Iterator[dict[str, str]]:
    """Azure's protocol by Azurite."""
    if not _AZURITE.exists():
        pytest.skip("Azurite is not here: make setup-azurite (it needs node)")
    command = [str(_AZURITE), "--blobHost", "127.0.0.1", "--blobPort", "0",
               "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]  # fmt: skip
    with stores.server(command, "successfully listens") as host:
        account = f"http://{host}/devstoreaccount1"
        made = f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY};"
        yield {"AZURE_STORAGE_CONNECTION_STRING": f"{made}BlobEndpoint={account};"}

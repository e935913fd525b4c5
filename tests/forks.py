"""Has trainings fork from one process, for tests that are about what training does.

Those about signals, process trees, exit codes, launchers and first starts take the real way, and
so does one training of each kind. See forkserver.py for what a fork is not.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock

from envtune.engine.train import MODULES
from tests.harness import ROOT, clean_environ

HERE = ROOT / "tests"
# As envtune has it for a training and its evaluation: the imports read it.
ENVIRON = {
    "AXOLOTL_DO_NOT_TRACK": "1",
    "AXOLOTL_TEE_STDOUT": "0",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


@contextmanager
def server(
    root: Path, modules: Sequence[str] = MODULES, more: Mapping[str, str] | None = None
) -> Iterator[dict[str, str]]:
    """What to add to the environment of a start. The processes of the tests share one server
    in `root`; it ends when the last of them has left. `more` is set there and in the starts."""
    place = root / "forkserver"
    client = {
        "PYTHONPATH": str(HERE / "forking"),
        "TRAININGS_FORK_FROM": str(place),
        **(more or {}),
        "WANDB_MODE": "disabled",  # as a training without a key has it, and its evaluation too
    }
    process = None
    with FileLock(root / "forkserver.lock"):
        if (held := _connected(place)) is None:
            process, held = _started(place, client, modules)
    with held:
        yield client
    with suppress(subprocess.TimeoutExpired):  # others may stay
        if process is not None:
            process.wait(2)


def told(root: Path) -> list[str]:
    """What the server says that it has served, and what not and why."""
    path = root / "forkserver.told"
    return path.read_text().splitlines() if path.exists() else []


def is_there(root: Path) -> bool:
    """Whether a server listens; asking is leaving, too."""
    if found := _connected(root / "forkserver"):
        found.close()
    return found is not None


def _connected(place: Path) -> socket.socket | None:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        found.connect(str(place))
    except OSError:
        found.close()
        return None
    return found


def _started(
    place: Path, client: dict[str, str], modules: Sequence[str]
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """Starts it in a session of its own: what ends a test's processes does not end it."""
    place.unlink(missing_ok=True)
    folder = place.with_suffix(".empty")
    folder.mkdir(exist_ok=True)
    environ = clean_environ(**ENVIRON, **client)
    environ["PATH"] = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{environ['PATH']}"
    log = place.with_suffix(".log")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "forkserver.py"), str(place), *modules],
            cwd=folder, env=environ, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    while (found := _connected(place)) is None:
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.1)
    return process, found

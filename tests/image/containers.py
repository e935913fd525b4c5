"""Starts the real image with docker, or with podman where no Docker engine runs.

What a container says is judged, too, on both streams and in every form of the engines: a
warning, an error or a traceback that a test has not asked for fails.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("IMAGE", "")
# As the image's own user, any other, and root would be called.
HOME = "/opt/envtune"
# logging's levels wherever they stand, torch's [rank0]:[W1122 ...], Python's own.
_COMPLAINT = re.compile(
    r"\b(?:WARNING|ERROR|CRITICAL|FATAL)\b|(?:^|[\[ ])[WEF]\d{4} |Warning: |^Traceback "
)


def _engine() -> list[str]:
    """The one that scripts/image.sh has built with."""
    docker = shutil.which("docker") if os.environ.get("ENGINE", "docker") == "docker" else None
    if docker and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        return [docker]
    return ["podman", "--log-level", "fatal"]


ENGINE = _engine()
ENVIRON = {**os.environ, "CONTAINERS_CONF": str(ROOT / "scripts" / "containers.conf")}


def engine(*words: str, seconds: float = 1800) -> subprocess.CompletedProcess[str]:
    """A command of the engine, whatever it ends with."""
    return subprocess.run(
        [*ENGINE, *words],
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@dataclass(frozen=True)
class Ended:
    """How a container ended."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> list[str]:
        """The lines in which it complains."""
        said = f"{self.out}\n{self.err}".splitlines()
        return [line for line in said if _COMPLAINT.search(line)]


@dataclass
class Container:
    """One container of the image. `volumes` are source:target, `flags` the engine's own."""

    environ: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[str] = ()
    flags: Sequence[str] = ()
    command: Sequence[str] = ()
    name: str = field(default_factory=lambda: f"envtune-test-{uuid4().hex[:12]}")

    def _words(self) -> list[str]:
        words = ["--name", self.name, *self.flags]
        for name, value in self.environ.items():
            words += ["--env", f"{name}={value}"]
        for volume in self.volumes:
            words += ["--volume", volume]
        return [*words, IMAGE, *self.command]

    def run(self, asked: str = "", seconds: float = 1800) -> Ended:
        """Starts it and waits. Every complaint has to match `asked`."""
        result = engine("run", "--rm", *self._words(), seconds=seconds)
        ended = Ended(result.returncode, result.stdout, result.stderr)
        judge(ended, asked)
        return ended

    def start(self) -> "Container":
        """Starts it in the background; `remove` is due."""
        result = engine("run", "--detach", *self._words())
        assert result.returncode == 0, result.stderr
        return self

    @contextmanager
    def started(self, asked: str = "") -> Iterator["Container"]:
        """In the background while the block runs. Then all that it has said is judged."""
        try:
            yield self.start()
            judge(log(self.name), asked)
        finally:
            self.remove()

    def exec(self, *words: str, flags: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return engine("exec", *flags, self.name, *words)

    def logs(self) -> str:
        told = log(self.name)
        return told.out + told.err

    def until(self, reached: Callable[[str], bool]) -> str:
        """Waits until the log has what is asked for."""
        deadline = time.monotonic() + 300
        while not reached(said := self.logs()):
            assert time.monotonic() < deadline, said
            time.sleep(0.5)
        return said

    def stop(self) -> Ended:
        """As `docker stop` does: the image's signal, then a kill."""
        engine("stop", "-t", "120", self.name)
        return self.wait()

    def wait(self) -> Ended:
        return log(self.name, int(engine("wait", self.name).stdout.strip()))

    def remove(self) -> None:
        engine("rm", "--force", "--volumes", self.name)


def log(name: str, code: int = 0) -> Ended:
    """What the container of that name has said until now."""
    result = engine("logs", name)
    assert result.returncode == 0, result.stderr
    return Ended(code, result.stdout, result.stderr)


def judge(ended: Ended, asked: str = "") -> None:
    """Fails on a complaint that does not match `asked`."""
    wrong = [line for line in ended.told if not (asked and re.search(asked, line))]
    assert not wrong, "\n".join([*wrong, "---", ended.out, ended.err])


def as_root() -> bool:
    """Whether the image is the one for platforms whose volumes are root's."""
    return engine("image", "inspect", "--format", "{{.Config.User}}", IMAGE).stdout.strip() == "0:0"

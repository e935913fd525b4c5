"""Starts the real image with docker, or with podman where no Docker engine runs.

What a container says is judged, too: a WARNING or an ERROR that a test has not asked for fails.
"""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

ROOT = Path(__file__).resolve().parents[2]
IMAGE = os.environ.get("IMAGE", "")
# As the image's own user, any other, and root would be called.
HOME = "/opt/envtune"
_LEVEL = re.compile(r"^(?:\S+ \S+ )?(?:WARNING|ERROR)\b.*$", re.MULTILINE)


def _engine() -> list[str]:
    docker = shutil.which("docker")
    if docker and not subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        return [docker]
    return ["podman", "--log-level", "fatal"]


ENGINE = _engine()
ENVIRON = {**os.environ, "CONTAINERS_CONF": str(ROOT / "scripts" / "containers.conf")}


def engine(*words: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
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
        """Its WARNING and ERROR lines, and what Python's warnings have said."""
        return _LEVEL.findall(self.err) + re.findall(r"^.*Warning: .*$", self.err, re.MULTILINE)


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

    def run(self, asked: str = "", seconds: float = 600) -> Ended:
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

    def exec(self, *words: str, flags: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return engine("exec", *flags, self.name, *words)

    def logs(self) -> str:
        result = engine("logs", self.name)
        return result.stdout + result.stderr

    def until(self, reached: Callable[[str], bool], seconds: float = 300) -> str:
        """Waits until the log has what is asked for."""
        deadline = time.monotonic() + seconds
        while not reached(said := self.logs()):
            assert time.monotonic() < deadline, said
            time.sleep(0.5)
        return said

    def stop(self, seconds: int = 120) -> Ended:
        """As `docker stop` does: the image's signal, then a kill."""
        engine("stop", "--time", str(seconds), self.name)
        return self.wait()

    def wait(self) -> Ended:
        code = int(engine("wait", self.name).stdout.strip())
        result = engine("logs", self.name)
        return Ended(code, result.stdout, result.stderr)

    def remove(self) -> None:
        engine("rm", "--force", "--volumes", self.name)


def judge(ended: Ended, asked: str = "") -> None:
    """Fails on a complaint that does not match `asked`."""
    wrong = [line for line in ended.told if not (asked and re.search(asked, line))]
    assert not wrong, "\n".join([*wrong, "---", ended.err])


def as_root() -> bool:
    """Whether the image is the one for platforms whose volumes are root's."""
    return engine("image", "inspect", "--format", "{{.Config.User}}", IMAGE).stdout.strip() == "0:0"

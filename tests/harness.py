"""Starts the real entrypoint as a user would, and looks at what it leaves behind."""

import json
import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

from envtune.machine import ports

ROOT = Path(__file__).resolve().parents[1]
AUTORUN = ROOT / "scripts" / "autorun.sh"
SHARED = ROOT.parent / "shared" / "data"
# Not ENVTUNE_...: children do not see those of their caller.
_MARK = "STARTED_BY_TEST"

# Each proof starts a server for a minute; the tests of the proof ask for it. A machine that
# pauses for seconds must not use up the grace.
DEFAULTS = {"SFT_PARITY": "off", "SFT_GRACE_SECONDS": "300"}

# Two tests run at once on two cores: threads that wait for each other by spinning, or that two
# vLLMs bind to the same core, made a training of 41 s take 205 s.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}

# No network: the Hub is a port that nothing listens on.
NOWHERE = "http://127.0.0.1:9"


def clean_environ(**settings: str) -> dict[str, str]:
    """The environment of a fresh container, with `settings`."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/root"),
        "LANG": "C.UTF-8",
        "HF_HUB_OFFLINE": "1",
        "HF_ENDPOINT": NOWHERE,
        **ONE_THREAD,
        **settings,
    }


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        """The messages of the log, without time."""
        return [line.split(" ", 2)[-1] for line in self.err.splitlines()]

    @property
    def said(self) -> list[str]:
        """The messages without time and level."""
        return [re.sub(r"^[-0-9]+ [:,0-9]+ [A-Z]+ ", "", line) for line in self.err.splitlines()]


@dataclass
class Start:
    """A running entrypoint. Its output can be read while it runs, and whoever holds it open
    after its end is not waited for."""

    process: subprocess.Popen[bytes]
    mark: str
    folder: Path
    streams: tuple[IO[bytes], IO[bytes]]

    @property
    def err(self) -> str:
        """What it has said so far."""
        return _written(self.streams[1])

    def signal_group(self, number: int = signal.SIGTERM) -> None:
        """As an init does that passes a signal on to a whole process group (tini -g)."""
        os.killpg(self.process.pid, number)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = 1800) -> Result:
        """How it ends. The code is 128+n for death by signal n, as a shell says it."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            for pid in self.left_over():  # or it would slow down every test after this one
                kill(pid)
            raise
        return Result(128 - code if code < 0 else code, _written(self.streams[0]), self.err)

    def until(self, reached: Callable[[], bool]) -> None:
        """Waits for a condition; fails when the process ends before it holds."""
        deadline = time.monotonic() + 900
        while not reached():
            assert self.process.poll() is None, self.err[-3000:]
            assert time.monotonic() < deadline, f"it takes too long: {self.err[-3000:]}"
            time.sleep(0.02)

    def until_said(self, text: str) -> None:
        self.until(lambda: text in self.err)

    def gone(self, seconds: float = 120) -> bool:
        """Whether nothing is left, at once or in the time that what was killed may take."""
        deadline = time.monotonic() + seconds
        while self.left_over() and time.monotonic() < deadline:
            time.sleep(0.05)
        return not self.left_over()

    def until_step(self, step: int) -> None:
        self.until(lambda: any(m["step"] >= step for m in metrics(self.only_run())))
        assert len(self.left_over()) > 1, "the mark does not reach the children"

    def only_run(self) -> Path:
        """The run's folder, or a path that does not exist yet."""
        found = sorted(path.parent for path in self.folder.glob("outputs/*/run.json"))
        return found[-1] if found else self.folder / "outputs" / "none"

    def left_over(self) -> list[int]:
        """Every process that descends from this start, whatever session it is in."""
        needle = f"{_MARK}={self.mark}".encode()
        found = []
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if needle in path.read_bytes().split(b"\0"):
                    found.append(int(path.parent.name))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found

    def commands(self) -> dict[int, bytes]:
        """The command line of each of those that is still there when it is read."""
        found = {}
        for pid in self.left_over():
            with suppress(FileNotFoundError, ProcessLookupError):
                found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes()
        return found


@dataclass
class Entrypoint:
    """scripts/autorun.sh in a folder of its own with settings of its own."""

    folder: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    def start(self, *arguments: str, **more: str) -> Start:
        mark, streams = uuid.uuid4().hex, (_stream(), _stream())
        process = subprocess.Popen(
            [str(AUTORUN), *arguments],
            cwd=self.folder,
            env=clean_environ(**{**DEFAULTS, **self.settings, **more, _MARK: mark}),
            stdin=subprocess.DEVNULL,
            stdout=streams[0],
            stderr=streams[1],
            process_group=0,
        )
        return Start(process, mark, self.folder, streams)

    def run(self, *arguments: str, **more: str) -> Result:
        return self.start(*arguments, **more).wait()

    def train(self, **more: str) -> Path:
        """Trains to the end and returns the run's folder."""
        start = self.start(**more)
        result = start.wait()
        assert result.code == 0, result.err[-4000:]
        return start.only_run()


def _stream() -> IO[bytes]:
    return tempfile.TemporaryFile("ab+")


def _written(stream: IO[bytes]) -> str:
    """All that is written so far; reads beside whoever writes, whose place it shares."""
    size = os.fstat(stream.fileno()).st_size
    return os.pread(stream.fileno(), size, 0).decode(errors="replace")


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process that may have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def free_port() -> int:
    """A port of loopback that stays free until it is bound, however late that is: one that
    the kernel gives to nobody who wants just any (32768 and above)."""
    while ports.in_use("127.0.0.1", port := random.SystemRandom().randrange(15000, 32768)):
        pass
    return port


def envtune(*arguments: str, cwd: Path, environ: Mapping[str, str]) -> Result:
    """Runs a verb of the command."""
    return execute([str(ROOT / ".venv" / "bin" / "envtune"), *arguments], cwd, environ)


def execute(argv: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> Result:
    """Runs any command to its end."""
    done = subprocess.run(argv, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    return Result(done.returncode, done.stdout, done.stderr)


class Quiet(BaseHTTPRequestHandler):
    """The base of stand-ins for servers that cannot be reached from a test."""

    def log_message(self, *arguments: object) -> None:
        """Says nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server on loopback while the block runs; gives its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def metrics(run: Path) -> list[dict[str, Any]]:
    """The whole lines of metrics.jsonl."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def losses(run: Path) -> list[tuple[int, float, float]]:
    """What a resumed run has to repeat bit for bit: step, loss, gradient norm."""
    return [(m["step"], m["loss"], m["grad_norm"]) for m in metrics(run)]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}

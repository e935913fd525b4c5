"""A process that has imported Axolotl once and forks for each training. For tests alone.

Half of what a training of the tests costs are its imports. `forking/sitecustomize.py`, which the
harness puts before a training's Python by PYTHONPATH, asks this process instead of importing, and
waits in its place: it passes on signals and ends as the fork does. envtune knows nothing of it.

A fork is what a fresh process would be, with these differences, for which a test that is about
one of them takes the real way: it descends from this process and has a session of its own; /proc
shows the environment of this process as its; it shares the seed of `hash` with all other forks.
What was read of the environment during the imports is noted: a training that has another value
there is not served and starts as ever.

    python forkserver.py SOCKET MODULE ...
"""

import array
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The only other thread that the imports leave: Arrow's allocator, which knows how to be forked.
_MAY_STAY = "jemalloc_bg_thd"
# What Python, the loader and the libraries of C read as they are loaded; and what modules look for
# that go through the whole environment: networkx, numba, tqdm, and urllib.
_READ = (
    "OMP_", "MKL_", "KMP_", "OPENBLAS_", "LD_", "LC_", "LANG", "TZ", "PYTHON", "MALLOC_",
    "NETWORKX_", "NUMBA_", "TQDM_",
)  # fmt: skip
_PROXIES = ("_proxy", "_PROXY")


@dataclass
class Request:
    """A command as its process was given it."""

    argv: list[str]
    environ: dict[str, str]
    cwd: str
    umask: int
    streams: list[int] = field(default_factory=list)

    def become(self, written: dict[str, str]) -> None:
        """Makes this fork the process that was asked for. `written`: what imports have set."""
        os.setsid()
        for number, stream in enumerate(self.streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(self.cwd)
        os.umask(self.umask)
        os.environ.clear()
        os.environ.update({**self.environ, **written})
        sys.path[0] = self.cwd
        sys.orig_argv[:] = [sys.executable, "-m", *self.argv]
        sys.argv[:] = self.argv


@dataclass
class Imports:
    """What the imports have read of the environment, and what they have set in it."""

    before: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    read: set[str] = field(default_factory=set)
    written: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def noted(self) -> Iterator[None]:
        read, kind = self.read, type(os.environ)
        get: Callable[..., str] = kind.__getitem__

        def note(environ: "os._Environ[str]", name: str) -> str:
            if sys._getframe(1).f_code.co_name != "__iter__":  # not of those that go through all
                read.add(name)
            return get(environ, name)

        kind.__getitem__ = note  # type: ignore[method-assign]
        try:
            yield
        finally:
            kind.__getitem__ = get  # type: ignore[method-assign]
        now = dict(os.environ)
        self.written = {name: now[name] for name in now if now[name] != self.before.get(name)}

    def differs(self, environ: dict[str, str]) -> list[str]:
        """The names that would have made the imports another thing."""
        changed = (n for n in {*environ, *self.before} if environ.get(n) != self.before.get(n))
        return sorted(
            n for n in changed if n in self.read or n.startswith(_READ) or n.endswith(_PROXIES)
        )


class Server:
    """Listens, forks, and ends when nobody who wants it is left."""

    def __init__(self, place: Path, imports: Imports) -> None:
        self.imports, self.told = imports, place.with_suffix(".told")
        self.selector = selectors.DefaultSelector()
        self.door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.door.bind(str(place))
        self.door.listen(64)
        self._watch(self.door, self._greet)
        self.users: set[socket.socket] = set()
        self.child: Request | None = None

    def serve(self) -> Request | None:
        """A request, in the fork that it is for; None here, when nobody is left."""
        while True:
            for key, _ in self.selector.select():
                key.data()
                if self.child is not None:
                    return self.child
            if not self.users:
                return None

    def _watch(self, what: Any, react: Callable[[], None]) -> None:
        self.selector.register(what, selectors.EVENT_READ, react)

    def _greet(self) -> None:
        guest, _ = self.door.accept()
        self.users.add(guest)
        self._watch(guest, lambda: self._hear(guest))

    def _leave(self, guest: socket.socket) -> None:
        self.users.discard(guest)
        self.selector.unregister(guest)
        guest.close()

    def _hear(self, guest: socket.socket) -> None:
        """A user says nothing until it goes; a training says all at once."""
        data, ancillary, _, _ = guest.recvmsg(1 << 20, socket.CMSG_SPACE(12))
        if not data:
            self._leave(guest)
            return
        streams = array.array("i")
        for _, _, sent in ancillary:
            streams.frombytes(sent)
        request = Request(**json.loads(data), streams=list(streams))
        if names := self.imports.differs(request.environ):
            self._tell(f"{request.argv[0]} not served: {' '.join(names)}")
            self._leave(guest)
        else:
            self._fork(guest, request)
        if self.child is None:
            for stream in streams:
                os.close(stream)

    def _tell(self, line: str) -> None:
        with self.told.open("a") as stream:
            stream.write(f"{line}\n")

    def _fork(self, guest: socket.socket, request: Request) -> None:
        pid = os.fork()
        if pid == 0:
            for key in list(self.selector.get_map().values()):
                os.close(key.fd)
            self.child = request
            return
        self._tell(f"{request.argv[0]} served by {pid} in {request.cwd}")
        guest.send(b"served")
        self.selector.modify(guest, selectors.EVENT_READ, lambda: self._pass_on(guest, pid))
        ended = os.pidfd_open(pid)
        self._watch(ended, lambda: self._reap(guest, pid, ended))

    def _pass_on(self, guest: socket.socket, pid: int) -> None:
        """A signal; or it was killed itself, and what it stands for goes with it."""
        with suppress(ProcessLookupError):
            if number := guest.recv(1):
                os.kill(pid, number[0])
            else:
                os.killpg(pid, signal.SIGKILL)
                self.selector.unregister(guest)

    def _reap(self, guest: socket.socket, pid: int, ended: int) -> None:
        os.killpg(pid, signal.SIGKILL)  # what it leaves, as its supervisor would
        _, status = os.waitpid(pid, 0)
        with suppress(OSError):
            guest.send(status.to_bytes(4, "little"))
        self.selector.unregister(ended)
        os.close(ended)
        with suppress(KeyError):
            self.selector.unregister(guest)
        self.users.discard(guest)
        guest.close()


def _alone() -> None:
    """A fork has only the thread that forks: others would be missed, with the locks they hold."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    names.remove(Path("/proc/self/comm").read_text().strip())
    assert set(names) <= {_MAY_STAY}, names


def main() -> None:
    place, modules, imports = Path(sys.argv[1]), sys.argv[2:], Imports()
    sys.path[0] = os.getcwd()
    with imports.noted():
        for module in modules:
            importlib.import_module(module)
    _alone()
    gc.collect()
    gc.freeze()  # the forks' collections need not look through the imports, nor copy them
    request = Server(place, imports).serve()
    if request is not None:
        request.become(imports.written)
        runpy.run_module(request.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

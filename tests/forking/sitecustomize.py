"""Has a process that was forked from `forkserver.py` do the work of this one. For tests alone.

Python loads this at its start where a test has put its folder on PYTHONPATH. It concerns the
modules below, as they are started by `python -m`; where the server does not serve one, or is
gone, this process starts as if nothing had been asked.
"""

import os
import sys

_SERVED = (
    "envtune.engine.train",
    "envtune.engine.chat",
    "envtune.engine.evaluate.answers",
    "envtune.engine.evaluate.evaluate",
    "envtune.engine.export.export",
)
_PLACE = "TRAININGS_FORK_FROM"


def _ask(place: str) -> None:
    import array
    import json
    import signal
    import socket

    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        server.connect(place)
    except OSError:
        return
    os.umask(umask := os.umask(0))
    told = {"argv": sys.orig_argv[2:], "environ": dict(os.environ), "cwd": os.getcwd()}
    streams = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, lambda number, frame: server.send(bytes([number])))
    server.sendmsg([json.dumps({**told, "umask": umask}).encode()], [streams])
    if server.recv(6):
        _end(int.from_bytes(server.recv(4) or b"\x09", "little"))  # it was killed with the server
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(status: int) -> None:
    """Ends as the fork has: with its code, or by its signal."""
    import signal

    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


if sys.orig_argv[1:2] == ["-m"] and sys.orig_argv[2] in _SERVED and os.environ.get(_PLACE):
    _ask(os.environ[_PLACE])

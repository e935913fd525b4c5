"""The doctor on processes that add up: real ones, over gloo, and over NCCL where GPUs are.

The children are started from the main thread, so that a stop of the doctor ends them too.
"""

import importlib.util
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from envtune import files, redaction
from envtune.checks.doctor.subject import Subject
from envtune.checks.doctor.table import Sign, found, skipped, well
from envtune.machine import ports
from envtune.render import launch
from envtune.supervise import process
from envtune.supervise.process import Beside

# Importing torch twice on a slow disk takes most of it, seconds.
SECONDS = 120.0
_TICK = 0.1
_ON_GLOO = 2


def processes(subject: Subject) -> Iterator[Sign]:
    """An all-reduce of two processes over gloo, and of one process a GPU over NCCL."""
    if importlib.util.find_spec("torch") is None:
        yield skipped("torch is not installed here")
        return
    yield _added(subject, "gloo", _ON_GLOO, "D-RED-01")
    if subject.machine.gpus and subject.machine.built_for:
        yield _added(subject, "nccl", len(subject.machine.gpus), "D-RED-02")


def _added(subject: Subject, backend: str, world: int, code: str) -> Sign:
    """What came of an all-reduce of `world` processes."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="envtune-") as folder, ExitStack() as stack:
        order = {"backend": backend, "port": ports.free(), "world": world}
        ranks = [
            stack.enter_context(_rank(subject, Path(folder), {**order, "rank": rank}))
            for rank in range(world)
        ]
        ended = _ended(ranks, started + SECONDS)
    took = time.monotonic() - started
    lost = [rank for rank, code in enumerate(ended) if code != 0]
    if not lost:
        return well(f"{backend}: {world} processes added up in {took:.1f} s")
    # One that failed says more than those that waited for it.
    rank = next((rank for rank in lost if ended[rank] is not None), lost[0])
    said = ranks[rank].tail[-1] if ranks[rank].tail else "it said nothing"
    how = "ended with no sum" if ended[rank] is not None else f"hung for {SECONDS:.0f} s"
    return found(code, f"{backend}: process {rank} of {world} {how}: {said}")


def _rank(
    subject: Subject, folder: Path, order: Mapping[str, Any]
) -> AbstractContextManager[Beside]:
    """A process of the group, for as long as the block lasts."""
    file = folder / f"{order['rank']}.json"
    files.write_json(file, order)
    environ = redaction.hidden(subject.passed_on or {})
    if order["backend"] == "gloo":
        environ |= {"CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    plan = launch.engine("allreduce", file, subject.python, folder, environ)
    secrets = redaction.secrets(environ)
    clean = partial(redaction.redact, secrets=secrets)
    return process.beside(plan, file.with_suffix(".log"), clean)


def _ended(ranks: list[Beside], deadline: float) -> list[int | None]:
    """Each one's code once all have ended, one has failed or the time is over."""
    while time.monotonic() < deadline:
        codes = [rank.ended() for rank in ranks]
        if None not in codes or any(codes):
            return codes
        time.sleep(_TICK)
    return [rank.ended() for rank in ranks]

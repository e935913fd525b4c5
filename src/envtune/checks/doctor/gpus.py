"""The doctor on the GPUs: what the kernel, the driver and torch say of them, without torch."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from envtune.checks import machine as judged
from envtune.checks.doctor.subject import Subject
from envtune.checks.doctor.table import Sign, found, problem, skipped, well
from envtune.machine import hardware

_CONTROL = Path("/dev/nvidiactl")
_GIB = 2**30
# The driver itself keeps some of a GPU's memory.
_NOBODYS = _GIB


def gpus(subject: Subject) -> Iterator[Sign]:
    """The driver, the CUDA that it knows, torch's, and who else is there."""
    version, seen = hardware.nvidia_driver(), subject.machine
    there = bool(version) or _CONTROL.exists()
    if there and (trouble := hardware.driver_trouble()):
        yield found("D-GPU-02", f"driver {version or 'of an unknown version'}: {trouble}")
    elif told := list(judged.absent(subject.settings, seen)):
        devices = "there is" if _CONTROL.exists() else "there is no"
        yield found("D-GPU-01", f"{str(told[0]).partition('; ')[0]} ({devices} {_CONTROL})")
    elif not seen.gpus:
        yield skipped("no GPU is visible, and none is asked for")
    else:
        yield from _visible(subject, version)


def _visible(subject: Subject, version: str) -> Iterator[Sign]:
    seen = subject.machine
    yield from (problem("D-GPU-03", told) for told in judged.driver(seen))
    yield from (problem("D-GPU-04", told) for told in judged.too_old(subject.settings, seen))
    if seen.built_for is None and importlib.util.find_spec("torch") is not None:
        yield found("D-GPU-05", f"{seen.gpus[0].name} is visible and torch has no CUDA")
    for name, used, size in hardware.taken_on_gpus():
        if used > _NOBODYS:
            yield found("D-GPU-06", f"{name}: {used / _GIB:.1f} of {size / _GIB:.1f} GiB in use")
    knows, built = (_dotted(v) for v in (seen.driver, seen.built_for))
    yield well(f"{seen}; driver {version} knows CUDA {knows}, torch is built for {built}")


def _dotted(version: tuple[int, int] | None) -> str:
    return ".".join(map(str, version)) if version else "none"

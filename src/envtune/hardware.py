"""What is there: GPUs, cores, memory. The only module that probes the machine.

Limits of the container (cgroups) count, not the host's size.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# cgroup v1 writes this page-rounded maximum where nothing is limited.
_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Gpu:
    """A visible GPU. `memory` in bytes; `capability` such as (9, 0)."""

    name: str
    memory: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Machine:
    """The machine as training will see it. `memory` in bytes."""

    gpus: tuple[Gpu, ...]
    cores: int
    memory: int
    flavor: str = ""

    def __str__(self) -> str:
        gpus = ", ".join(f"{g.name} ({g.memory / 2**30:.0f} GiB)" for g in self.gpus) or "no GPU"
        return f"{gpus}, {self.cores} cores, {self.memory / 2**30:.0f} GiB memory"


def probe(environ: Mapping[str, str]) -> Machine:
    """The machine, seen through the container's limits and CUDA_VISIBLE_DEVICES."""
    return Machine(
        gpus=_gpus(environ.get("CUDA_VISIBLE_DEVICES")),
        cores=cores(),
        memory=_memory(),
        flavor=environ.get("FLAVOR", ""),
    )


def home_is_usable(environ: Mapping[str, str]) -> bool:
    """Whether programs can keep their caches where they look for them."""
    home = environ.get("HOME", "")
    return bool(home) and os.access(home, os.W_OK | os.X_OK)


def cores() -> int:
    """How many cores the container may use."""
    allowed = len(os.sched_getaffinity(0))
    limit = _read(_CGROUP / "cpu.max").split()
    if len(limit) == 2 and limit[0] != "max":
        return max(1, min(allowed, round(int(limit[0]) / int(limit[1]))))
    quota, period = (_read(_CGROUP / "cpu" / f"cpu.cfs_{n}_us") for n in ("quota", "period"))
    if quota and period and int(quota) > 0:
        return max(1, min(allowed, round(int(quota) / int(period))))
    return allowed


def _memory() -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(_CGROUP / file)
        if text.isdigit() and int(text) < _UNLIMITED:
            return min(total, int(text))
    return total


def oom_kills() -> int:
    """How many processes the kernel has killed for memory in this container."""
    for file in ("memory.events", "memory/memory.oom_control"):
        words = _read(_CGROUP / file).split()
        if "oom_kill" in words:
            return int(words[words.index("oom_kill") + 1])
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _gpus(visible: str | None) -> tuple[Gpu, ...]:
    """NVIDIA's GPUs by NVML, which needs no CUDA context. None visible where it is absent."""
    if not Path("/dev/nvidiactl").exists():
        return ()
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    try:
        return tuple(_gpu(handle) for handle in _visible(handles, visible))
    finally:
        pynvml.nvmlShutdown()


def _gpu(handle: object) -> Gpu:
    import pynvml

    return Gpu(
        name=pynvml.nvmlDeviceGetName(handle),
        memory=pynvml.nvmlDeviceGetMemoryInfo(handle).total,
        capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
    )


def _visible(handles: list[object], visible: str | None) -> list[object]:
    """CUDA's own rule: a list of indices or UUIDs, cut at the first one that is not there."""
    if visible is None:
        return handles
    import pynvml

    uuids = {pynvml.nvmlDeviceGetUUID(h): h for h in handles}
    chosen = []
    for name in (part.strip() for part in visible.split(",")):
        if name.isdigit() and int(name) < len(handles):
            chosen.append(handles[int(name)])
        elif name and (match := [h for uuid, h in uuids.items() if uuid.startswith(name)]):
            chosen.append(match[0])
        elif name.startswith("MIG-"):
            chosen.append(handles[0])
        else:
            break
    return chosen

"""What is there: GPUs, cores, memory. The only module that probes the machine.

Limits of the container (cgroups) count, not the host's size. A machine that is not here can
be pretended, so that a laptop can check the job of a large one.
"""

import importlib.util
import os
import re
import socket
import sysconfig
from collections import Counter
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
    """The machine as training will see it. `memory` and `shm` (/dev/shm) in bytes.

    `driver` is the newest CUDA that the driver knows, `built_for` the one of torch, both as
    (major, minor) and None where there is none. None of `shm` is unknown.
    """

    gpus: tuple[Gpu, ...]
    cores: int
    memory: int
    flavor: str = ""
    shm: int | None = None
    driver: tuple[int, int] | None = None
    built_for: tuple[int, int] | None = None

    def __str__(self) -> str:
        gpus = ", ".join(
            f"{f'{count} x ' if count > 1 else ''}{gpu.name} ({gpu.memory / 2**30:.0f} GiB)"
            for gpu, count in Counter(self.gpus).items()
        )
        gpus = gpus or "no GPU"
        return f"{gpus}, {self.cores} cores, {self.memory / 2**30:.0f} GiB memory"


def _known(name: str, mebibytes: int, *capability: int) -> Gpu:
    return Gpu(name, mebibytes * 2**20, (capability[0], capability[1]))


# Names and memory as NVIDIA's driver reports them.
PRETENDED = {
    "a10": _known("NVIDIA A10", 23028, 8, 6),
    "a100": _known("NVIDIA A100-SXM4-40GB", 40960, 8, 0),
    "a100-80": _known("NVIDIA A100-SXM4-80GB", 81920, 8, 0),
    "a10g": _known("NVIDIA A10G", 23028, 8, 6),
    "a6000": _known("NVIDIA RTX A6000", 49140, 8, 6),
    "b200": _known("NVIDIA B200", 183359, 10, 0),
    "h100": _known("NVIDIA H100 80GB HBM3", 81559, 9, 0),
    "h200": _known("NVIDIA H200", 143771, 9, 0),
    "l4": _known("NVIDIA L4", 23034, 8, 9),
    "l40s": _known("NVIDIA L40S", 46068, 8, 9),
    "rtx3090": _known("NVIDIA GeForce RTX 3090", 24576, 8, 6),
    "rtx4090": _known("NVIDIA GeForce RTX 4090", 24564, 8, 9),
    "rtx5090": _known("NVIDIA GeForce RTX 5090", 32607, 12, 0),
    "t4": _known("Tesla T4", 15360, 7, 5),
    "v100": _known("Tesla V100-SXM2-16GB", 16384, 7, 0),
    "v100-32": _known("Tesla V100-SXM2-32GB", 32768, 7, 0),
}
PRETENDED_NAME = rf"^(?P<name>{'|'.join(PRETENDED)})(x(?P<count>[1-9][0-9]?))?$"


def look(wanted: str | None, environ: Mapping[str, str]) -> Machine:
    """The machine that is `wanted` in place of this one, or this one."""
    return pretended(wanted) if wanted else probe(environ)


def pretended(text: str) -> Machine:
    """The machine that `<name>` or `<name>x<count>` stands for.

    Each GPU comes with eight cores and twice its memory, about what clouds sell with it.
    """
    match = re.match(PRETENDED_NAME, text.strip())
    assert match is not None, f"{text} does not match its own setting's pattern"
    gpu, count = PRETENDED[match["name"]], int(match["count"] or 1)
    return Machine((gpu,) * count, cores=8 * count, memory=2 * gpu.memory * count)


def probe(environ: Mapping[str, str]) -> Machine:
    """The machine, seen through the container's limits and CUDA_VISIBLE_DEVICES."""
    gpus, driver = _gpus(environ.get("CUDA_VISIBLE_DEVICES"))
    return Machine(
        gpus=gpus,
        cores=cores(),
        memory=_memory(),
        flavor=environ.get("FLAVOR", ""),
        shm=shm(),
        driver=driver,
        built_for=_built_for() if gpus else None,
    )


def home_is_usable(environ: Mapping[str, str]) -> bool:
    """Whether programs can keep their caches where they look for them."""
    home = environ.get("HOME", "")
    return bool(home) and os.access(home, os.W_OK | os.X_OK)


def cuda_home() -> Path | None:
    """The folder of NVIDIA's compiler, where its wheels have brought one."""
    packages = Path(sysconfig.get_path("purelib")) / "nvidia"
    return next((nvcc.parents[1] for nvcc in sorted(packages.glob("cu*/bin/nvcc"))), None)


def started_by_init() -> bool:
    """Whether this process is what a container was started for, and not a shell's child.

    An init in front of it, or nothing. `docker exec` shows no parent either, and another pid.
    """
    return os.getpid() == 1 or os.getppid() == 1


def container(environ: Mapping[str, str]) -> str:
    """A name that a container keeps when it is started again and shares with no other.

    A new one may have the same host's name. Docker, podman and the kubelet each mount a hosts
    file of its own into it, from a path with its id.
    """
    named = environ.get("RUNPOD_POD_ID") or environ.get("POD_UID")
    return named or _mounted("/etc/hosts") or socket.gethostname()


def _mounted(path: str) -> str:
    """What is mounted on a path, as its own file system names it."""
    mounts = (line.split() for line in _read(Path("/proc/self/mountinfo")).splitlines())
    return next((root for _, _, _, root, target, *_ in mounts if target == path), "")


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


def shm() -> int | None:
    """The size of /dev/shm in bytes, or None where there is none."""
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return None
    return stat.f_frsize * stat.f_blocks


def _built_for() -> tuple[int, int] | None:
    """The CUDA that torch was built for, without the seconds that importing it takes."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    told = re.search(
        r"^cuda\b[^=]*= '(\d+)\.(\d+)", _read(Path(spec.origin).parent / "version.py"), re.M
    )
    return (int(told[1]), int(told[2])) if told else None


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


def _gpus(visible: str | None) -> tuple[tuple[Gpu, ...], tuple[int, int] | None]:
    """NVIDIA's GPUs by NVML, which needs no CUDA context, and the CUDA that their driver knows.

    None visible where it is absent.
    """
    if not Path("/dev/nvidiactl").exists():
        return (), None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return (), None
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
    try:
        known = pynvml.nvmlSystemGetCudaDriverVersion_v2()  # 12040 is 12.4
        gpus = tuple(_gpu(handle) for handle in _visible(handles, visible))
        return gpus, (known // 1000, known % 1000 // 10)
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

"""What is there: GPUs, cores, memory. The only module that probes the machine.

Limits of the container (cgroups) count, not the host's size.
"""

import importlib.util
import os
import re
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
# cgroup v1 writes this page-rounded maximum where nothing is limited.
_UNLIMITED = 1 << 60
# Of cgroups v2 and v1: the limit, what is used, and what of that are files in memory.
_LIMITS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)


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


def probe(environ: Mapping[str, str]) -> Machine:
    """The machine, seen through the container's limits and CUDA_VISIBLE_DEVICES."""
    gpus, driver = _gpus(environ.get("CUDA_VISIBLE_DEVICES"))
    return Machine(
        gpus=gpus,
        cores=cores(),
        memory=memory(),
        flavor=environ.get("FLAVOR", ""),
        shm=shm(),
        driver=driver,
        built_for=_built_for() if gpus else None,
    )


def home_is_usable(environ: Mapping[str, str]) -> bool:
    """Whether programs can keep their caches where they look for them."""
    home = environ.get("HOME", "")
    return bool(home) and os.access(home, os.W_OK | os.X_OK)


def cuda_home(environment: Path) -> Path | None:
    """The folder of NVIDIA's compiler, where its wheels have brought one into an environment."""
    found = sorted(environment.glob("lib/python3*/site-packages/nvidia/cu*/bin/nvcc"))
    return next((nvcc.parents[1] for nvcc in found), None)


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
    mounts = (line.split() for line in read(Path("/proc/self/mountinfo")).splitlines())
    return next((root for _, _, _, root, target, *_ in mounts if target == path), "")


def cores() -> int:
    """How many cores the container may use."""
    allowed = len(os.sched_getaffinity(0))
    limit = read(_CGROUP / "cpu.max").split()
    if len(limit) == 2 and limit[0] != "max":
        return max(1, min(allowed, round(int(limit[0]) / int(limit[1]))))
    quota, period = (read(_CGROUP / "cpu" / f"cpu.cfs_{n}_us") for n in ("quota", "period"))
    if quota and period and int(quota) > 0:
        return max(1, min(allowed, round(int(quota) / int(period))))
    return allowed


def memory_used() -> tuple[int, int]:
    """Bytes of memory that nobody can take back from the container, and how many it may have.

    Pages of files do not count: the kernel drops them where memory is wanted.
    """
    limit = memory()
    for file, names in (
        ("memory.stat", ("anon", "shmem")),
        ("memory/memory.stat", ("total_rss", "total_shmem")),
    ):
        told = _figures(_CGROUP / file)
        if names[0] in told and limit < _total():
            return sum(told.get(name, 0) for name in names), limit
    told = _figures(Path("/proc/meminfo"))
    return (told.get("MemTotal:", 0) - told.get("MemAvailable:", 0)) * 1024, limit


def _figures(path: Path) -> dict[str, int]:
    """The figures of a file of the kernel's that has a name and a number on each line."""
    lines = (line.split() for line in read(path).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) > 1 and words[1].isdigit()}


def _total() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def memory() -> int:
    """Bytes of memory that the container may use."""
    total = _total()
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        text = read(_CGROUP / file)
        if text.isdigit() and int(text) < _UNLIMITED:
            return min(total, int(text))
    return total


def memory_free() -> int:
    """Bytes that this container may still take: the host's, or what is left of its limit. What
    the kernel keeps of files it gives back."""
    told = re.search(r"MemAvailable:\s+(\d+) kB", read(Path("/proc/meminfo")))
    free = [int(told[1]) * 1024] if told else []
    for limit, used, kept in _LIMITS:
        most, now = (read(_CGROUP / file) for file in (limit, used))
        if most.isdigit() and now.isdigit() and int(most) < _UNLIMITED:
            files = re.search(
                rf"^{kept} (\d+)$", read((_CGROUP / used).parent / "memory.stat"), re.M
            )
            free.append(int(most) - int(now) + (int(files[1]) if files else 0))
    return max(0, min(free, default=memory()))


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
        r"^cuda\b[^=]*= '(\d+)\.(\d+)", read(Path(spec.origin).parent / "version.py"), re.M
    )
    return (int(told[1]), int(told[2])) if told else None


def oom_kills() -> int:
    """How many processes the kernel has killed for memory in this container."""
    for file in ("memory.events", "memory/memory.oom_control"):
        words = read(_CGROUP / file).split()
        if "oom_kill" in words:
            return int(words[words.index("oom_kill") + 1])
    return 0


def read(path: Path) -> str:
    """A file of the kernel's without its last newline; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def nvidia_driver() -> str:
    """The version of the kernel's driver for NVIDIA's GPUs, empty where there is none."""
    told = read(Path("/proc/driver/nvidia/version"))
    found = re.search(r"Module.*?\s(\d+\.\d[\d.]*)", told)
    return found[1] if found else ""


def driver_trouble() -> str:
    """What keeps NVML, by which GPUs are found, from answering; empty where nothing does."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return str(error)
    pynvml.nvmlShutdown()
    return ""


def taken_on_gpus() -> list[tuple[str, int, int]]:
    """Name, bytes in use and bytes of each of NVIDIA's GPUs, those of other containers too."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        infos = [(h, pynvml.nvmlDeviceGetMemoryInfo(h)) for h in handles]
        return [(str(pynvml.nvmlDeviceGetName(h)), int(i.used), int(i.total)) for h, i in infos]
    finally:
        pynvml.nvmlShutdown()


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

"""Whether this machine can do what is asked: its GPUs, its shared memory, its folders."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from envtune.checks import conflicts
from envtune.errors import Problem
from envtune.machine import ports
from envtune.machine.hardware import Machine
from envtune.machine.volumes import writable
from envtune.resolve import parallel
from envtune.resolve.config import Facts
from envtune.runs import folders as runs
from envtune.settings.own.place import STATUS_HOST, STATUS_PORT, STATUS_TOKEN
from envtune.settings.typed import Settings

# Bytes of a token in a batch: its id, its label, its place in the mask, and its position.
_A_TOKEN = 4 * 8
# NCCL's own advice for several GPUs of one node, in bytes; Docker gives 64 MiB.
_SHM, SHM_FOR_GPUS = "/dev/shm", 2**30
# torch 2.13.0+cu130 holds machine code for 7.5 and later, and nothing to compile for others:
# torch.cuda.get_arch_list().
_CUDA_13, _OLDEST = (13, 0), (7, 5)


def device(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """No GPU where one is asked for, or none that training can use."""
    yield from absent(settings, facts.machine)
    if os.path.exists(_SHM) and (problem := writable(_SHM, _SHM)):
        yield problem  # a lock of the data's preparation lies there
    yield from _loaders(settings, facts)
    if facts.device == "cpu":
        yield from conflicts.on_cpu(settings)
    else:
        yield from too_old(settings, facts.machine)
        yield from driver(facts.machine)
        yield from _shared(facts.machine)


def absent(settings: Settings, machine: Machine) -> Iterator[Problem]:
    """No GPU where one is asked for."""
    if machine.gpus:
        return
    wanted = settings.get("SFT_DEVICE")
    if wanted == "cuda":
        yield Problem(
            "SFT_DEVICE", "is cuda and no GPU is visible; check --gpus all and the driver"
        )
    elif wanted == "auto" and machine.flavor == "cuda":
        yield Problem(
            "SFT_DEVICE",
            "is not set and no GPU is visible in an image made for one; start it with "
            "--gpus all, or set SFT_DEVICE=cpu to train on the CPU",
        )


def _loaders(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Processes that hand batches over through /dev/shm, and more of them than fit there."""
    given = settings.axolotl.get("dataloader_num_workers")
    if given is None or not given.value or facts.machine.shm is None:
        return

    def chosen(key: str, default: int) -> int:
        found = settings.axolotl.get(key)
        return int(found.value) if found is not None and found.value else default

    batch = chosen("micro_batch_size", 4) * chosen("sequence_len", 2048) * _A_TOKEN
    ahead = chosen("dataloader_prefetch_factor", 2)
    needed = int(given.value) * (ahead + 1) * batch * facts.parallel.local
    if needed > facts.machine.shm:
        what = f"{given.value} processes a rank hand over batches of {batch:,} bytes, {needed:,} "
        yield Problem(
            given.name,
            f"{what}in all, and {_SHM} has {facts.machine.shm:,}; start the container with "
            f"--shm-size={max(1, -(-2 * needed // 2**30))}g, or set {given.name}=0",
        )


def too_old(settings: Settings, machine: Machine) -> Iterator[Problem]:
    """GPUs for which torch here has no code; the wheels of the image are those of CUDA 13."""
    pretended = bool(settings.get("SFT_PRETEND_GPU"))
    if not pretended and (machine.built_for or _CUDA_13) < _CUDA_13:
        return
    name = "SFT_PRETEND_GPU" if pretended else "the GPU"
    for gpu in {gpu for gpu in machine.gpus if gpu.capability < _OLDEST}:
        has, needed = (".".join(map(str, version)) for version in (gpu.capability, _OLDEST))
        yield Problem(
            name,
            f"{gpu.name} has compute capability {has}, and CUDA 13, for which torch here is built, "
            f"has dropped all before {needed}; take a GPU of Turing or later (T4, A10, L4, ...)",
        )


def driver(machine: Machine) -> Iterator[Problem]:
    """A driver that does not know the CUDA of torch."""
    driver, built_for = machine.driver, machine.built_for
    if driver and built_for and driver[0] < built_for[0]:  # minor versions fit each other
        known, needed = (".".join(map(str, version)) for version in (driver, built_for))
        yield Problem(
            "the GPU's driver",
            f"is too old: it knows CUDA {known} and torch here is built for CUDA {needed}; "
            f"take a host whose driver knows CUDA {built_for[0]}",
        )


def _shared(machine: Machine) -> Iterator[Problem]:
    """Too little memory for GPUs to talk through."""
    if len(machine.gpus) > 1 and machine.shm is not None and machine.shm < SHM_FOR_GPUS:
        yield Problem(
            _SHM,
            f"has {machine.shm // 2**20} MiB and {len(machine.gpus)} GPUs talk through it; start "
            "the container with --shm-size=8g, in Kubernetes with an emptyDir of medium Memory",
        )


def deepspeed(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """A preset or a configuration of DeepSpeed's without DeepSpeed."""
    preset, given = facts.parallel.preset, settings.axolotl.get("deepspeed")
    if importlib.util.find_spec("deepspeed") is not None:
        return
    if preset in parallel.ZERO:
        yield Problem(
            parallel.PRESET, f"{preset} needs DeepSpeed, which is not installed; use fsdp2"
        )
    elif given is not None and given.value and not settings.get("SFT_PRETEND_GPU"):
        yield Problem(given.name, "needs DeepSpeed, which is not installed; unset it")


def live_page(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """A page that everybody could read."""
    host = str(settings.get(STATUS_HOST))
    asked = settings.get(STATUS_PORT) and not facts.environ.get(STATUS_TOKEN, "").strip()
    if asked and ports.beyond_loopback(host):
        what = f"{host} is reached from beyond this machine and {STATUS_TOKEN} is not set"
        yield Problem(
            STATUS_HOST, f"{what}: set it to a secret that readers show, or use 127.0.0.1"
        )


def folders(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Folders that the run has to write to and cannot."""
    moved = "CKPT_ROOT" in settings.own and "SFT_OUTPUTS_DIR" not in settings.own
    written = {
        "CKPT_ROOT" if moved else "SFT_OUTPUTS_DIR": facts.outputs,
        "SFT_LOGS_DIR": facts.logs,
    }
    if named := settings.axolotl.get("output_dir"):
        written[named.name] = str(named.value)
    yield from (p for name, folder in written.items() if (p := writable(name, folder)))
    if not facts.where.rank:  # the others come to what node 0 has begun
        yield from _taken(settings, facts)


def _taken(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """Files of somebody else's in the place of what a run writes."""
    chosen = {n: settings.get(n) for n in ("FORCE_RUN_NAME", "LEGACY_RUN_NAME") if settings.get(n)}
    places = {settings.own[n].name: Path(facts.outputs) / name for n, name in chosen.items()}
    if named := settings.axolotl.get("output_dir"):
        places = {named.name: Path(str(named.value))}
    yield from (p for n, folder in places.items() if (p := runs.foreign(n, folder)))
    for name, base in (("SFT_OUTPUTS_DIR", facts.outputs), ("SFT_LOGS_DIR", facts.logs)):
        if problem := runs.foreign_pointer(name, Path(base)):
            yield problem

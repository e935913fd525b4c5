"""The doctor on the container: its mounts, folders, shared memory, disk and memory."""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from envtune.checks.doctor.subject import Subject
from envtune.checks.doctor.table import Sign, found, problem, well
from envtune.checks.machine import SHM_FOR_GPUS
from envtune.machine import hardware, mounts
from envtune.machine.volumes import writable
from envtune.transfer import hub

_SHM = Path("/dev/shm")
_MIB, _GIB = 2**20, 2**30
# What vLLM's two queues take, and processes that load data with room beside them, bytes.
_SHM_FOR_LOADERS = _GIB // 2
# No run gets far on the first; the weights of a model of 7 billion take 14 GB on the second.
_FULL, _LITTLE = _GIB, 20 * _GIB
_FEWEST_FILES = 1000
# Importing Axolotl's libraries takes 0.77 GB before any model.
LIBRARIES = _GIB
# What the image puts into its folder, and a checkout has too.
_BROUGHT = ("scripts/autorun.sh", "scripts/configure.py", "templates", "examples", "src", "docs")
_BROUGHT_BY_THE_IMAGE = ("demo",)


def mounted(subject: Subject) -> Iterator[Sign]:
    """A volume over what the installation needs, or over the caches of an image."""
    yield from _hidden(subject)
    if switch := hub.offline(subject.environ):
        yield from _empty_cache(subject.caches, switch)
    elif subject.settings.get("SFT_LOCAL_FILES_ONLY"):
        yield from _empty_cache(subject.caches, "SFT_LOCAL_FILES_ONLY")
    under = mounts.over(subject.outputs)
    if under and under.kind in mounts.LAYERS and subject.environ.get("FLAVOR"):
        yield found("D-MNT-03", f"{subject.outputs} lies in the container's own {under.kind}")


def _hidden(subject: Subject) -> Iterator[Sign]:
    root, image = subject.root, bool(subject.environ.get("FLAVOR"))
    names = (*_BROUGHT, *(_BROUGHT_BY_THE_IMAGE if image else ()))
    tops = {root / name.partition("/")[0] for name in (*names, ".venv")}
    covers = [m for m in mounts.mounts() if m.path in ({root, *tops} - {Path("/")})]
    lost = [name for name in names if not _is_there(root / name)]
    if covers and lost:
        what = f"{', '.join(map(str, covers))} hides {', '.join(lost)} of {root}"
        yield found("D-MNT-01", what)
    elif image and lost:
        yield found("D-MNT-01", f"{root} lacks {', '.join(lost)}", "start from the image anew")
    elif covers:
        yield well(f"{covers[0]} hides nothing that is needed")
    else:
        yield well(f"nothing is mounted over {root}")


def _is_there(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.exists()


def _empty_cache(caches: Path, switch: str) -> Iterator[Sign]:
    under = mounts.over(caches)
    volume = under is not None and under.kind not in mounts.LAYERS and under.path != Path("/")
    if volume and not (caches.is_dir() and any(caches.glob("*--*"))):
        yield found("D-MNT-02", f"{caches} on {under} holds no model and {switch} is set")


def folders(subject: Subject) -> Iterator[Sign]:
    """Whether this user can write where runs, logs and caches go, and what the volume is worth."""
    for name, folder in (("SFT_OUTPUTS_DIR", subject.outputs), ("SFT_LOGS_DIR", subject.logs)):
        if told := writable(name, str(folder)):
            yield problem("D-VOL-01", told)
        else:
            yield from _kept(folder)
    if told := writable("HF_HOME", str(subject.caches)):
        yield problem("D-VOL-02", told)
    else:
        yield well(f"{subject.caches} can be written")


def _kept(folder: Path) -> Iterator[Sign]:
    """Writes, syncs, locks and renames a file as a checkpoint and a lease are."""
    try:
        with tempfile.TemporaryDirectory(prefix=".envtune-", dir=_there(folder)) as made:
            first, second = Path(made, "first"), Path(made, "second")
            with first.open("wb") as stream:
                stream.write(bytes(_MIB))
                stream.flush()
                os.fsync(stream.fileno())
                locked = _locks(stream.fileno())
            first.rename(second)
            whole = second.stat().st_size == _MIB
    except OSError as error:
        yield found("D-VOL-03", f"{folder}: {error.strerror}")
        return
    if not whole:
        yield found("D-VOL-03", f"{folder}: a file of 1 MiB has another size once it is written")
    elif not locked:
        yield found("D-VOL-04", f"{folder} has no flock(2)")
    else:
        yield well(f"{folder} is written, synced, locked and renamed by uid {os.getuid()}")


def _locks(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _there(folder: Path) -> Path:
    """The folder, or the nearest above that is there."""
    return next(path for path in (folder, *folder.parents) if os.path.exists(path))


def shared_memory(subject: Subject) -> Iterator[Sign]:
    """The size of /dev/shm, and whether it can be written."""
    if not _SHM.is_dir():
        yield found("D-SHM-03", f"{_SHM} is not there")
        return
    if told := writable(str(_SHM), str(_SHM)):
        yield problem("D-SHM-03", told)
        return
    size, gpus = subject.machine.shm or 0, len(subject.machine.gpus)
    seen = f"{_SHM} has {size // _MIB} MiB"
    if gpus > 1 and size < SHM_FOR_GPUS:
        yield found("D-SHM-01", f"{seen} and {gpus} GPUs talk through it")
    elif size < _SHM_FOR_LOADERS:
        yield found("D-SHM-02", seen)
    else:
        yield well(seen)


def disk(subject: Subject) -> Iterator[Sign]:
    """Free bytes and files where runs and caches go."""
    places = {_there(path): path for path in (subject.outputs, subject.caches)}
    for place, path in places.items():
        stat = os.statvfs(place)
        free = stat.f_frsize * stat.f_bavail
        seen = f"{path}: {free / _GIB:.1f} GiB free of {stat.f_frsize * stat.f_blocks / _GIB:.1f}"
        if free < _FULL:
            yield found("D-DSK-01", seen)
        elif stat.f_files and stat.f_favail < _FEWEST_FILES:
            yield found("D-DSK-02", f"{path}: {stat.f_favail} files of {stat.f_files} are left")
        elif free < _LITTLE:
            yield found("D-DSK-03", seen)
        else:
            yield well(seen)


def memory(subject: Subject) -> Iterator[Sign]:
    """Free memory of the container, and whether the kernel has ended something for it."""
    free = hardware.memory_free()
    seen = f"{free / _GIB:.1f} GiB free of {subject.machine.memory / _GIB:.1f}"
    yield found("D-MEM-01", seen) if free < LIBRARIES else well(seen)
    if kills := hardware.oom_kills():
        yield found("D-MEM-02", f"{kills} processes since the container started")

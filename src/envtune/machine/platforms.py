"""What a platform's own variables say about nodes: RunPod's clusters, Slurm's steps, Kubernetes'
ordinals. Pure.

They count where none of torchrun's names says it, and are left in the child's environment.
"""

import re
from collections.abc import Iterator, Mapping

from envtune.errors import Problem

# Field of the rendezvous -> the variable that says it, and its text.
Said = Mapping[str, tuple[str, str]]

_RUNPOD = {
    "nodes": "NUM_NODES",
    "local": "NUM_TRAINERS",
    "address": "PRIMARY_ADDR",
    "port": "PRIMARY_PORT",
}
_TASKS = "SLURM_STEP_TASKS_PER_NODE"
_ONE_EACH = re.compile(r"1(\(x\d+\))?")
_HOST = re.compile(r"(?:[^,\[]|\[[^\]]*\])*")
_RANGE = re.compile(r"\[(\d+)[^\]]*\]")
_ORDINAL = re.compile(r"-(\d+)$")


def said(environ: Mapping[str, str]) -> Said:
    """What the platform says that has started this node; nothing elsewhere."""
    return _runpod(environ) or _slurm(environ) or _kubernetes(environ)


def problems(environ: Mapping[str, str]) -> Iterator[Problem]:
    """A start of the platform's that would make several of us on one node."""
    tasks = environ.get(_TASKS, "")
    if _is_step(environ) and tasks and not _ONE_EACH.fullmatch(tasks):
        how = "start one task on each node (srun --ntasks-per-node=1); its processes start here"
        yield Problem(_TASKS, f"is {tasks}; {how}")


def _runpod(environ: Mapping[str, str]) -> Said:
    if not environ.get("RUNPOD_POD_ID"):
        return {}
    return {field: (name, environ[name]) for field, name in _RUNPOD.items() if environ.get(name)}


def _slurm(environ: Mapping[str, str]) -> Said:
    if not _is_step(environ):
        return {}
    found = {
        "nodes": ("SLURM_STEP_NUM_NODES", environ["SLURM_STEP_NUM_NODES"]),
        "rank": ("SLURM_NODEID", environ.get("SLURM_NODEID", "")),
        "address": ("SLURM_STEP_NODELIST", _first(environ.get("SLURM_STEP_NODELIST", ""))),
    }
    return {field: (name, text) for field, (name, text) in found.items() if text}


def _first(hosts: str) -> str:
    """The first host of Slurm's list, such as gpu[03-05,7],login1."""
    name = _HOST.match(hosts)
    return _RANGE.sub(r"\1", name[0]) if name else ""


def _is_step(environ: Mapping[str, str]) -> bool:
    """Whether srun has started us, on every node. A batch script runs on the first one alone,
    and so does a terminal."""
    return bool(environ.get("SLURM_STEP_NUM_NODES")) and "SLURM_PTY_PORT" not in environ


def _kubernetes(environ: Mapping[str, str]) -> Said:
    """An indexed Job's index, or the ordinal of a StatefulSet's pod."""
    if index := environ.get("JOB_COMPLETION_INDEX"):
        return {"rank": ("JOB_COMPLETION_INDEX", index)}
    name = "POD_NAME" if environ.get("POD_NAME") else "HOSTNAME"
    ordinal = _ORDINAL.search(environ.get(name, ""))
    if ordinal and (name == "POD_NAME" or environ.get("KUBERNETES_SERVICE_HOST")):
        return {"rank": (name, ordinal[1])}
    return {}

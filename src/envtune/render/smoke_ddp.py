"""The small training that tries the processes: its flags, its command, what it comes to. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.errors import Exit, Problem
from envtune.machine.rendezvous import VARIABLES, Rendezvous
from envtune.render.launch import LaunchPlan

MODULE = "envtune.engine.smoke_ddp"
# Where a rank was started by torchrun or accelerate, which has told it all of these.
_RANK = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


# Name -> type, default and meaning.
FLAGS: dict[str, tuple[Callable[[str], Any], Any, str]] = {
    "epochs": (_count, 2, "how often every row is learned"),
    "batch": (_count, 256, "rows of each process in a step"),
    "samples": (_count, 4096, "rows in all"),
    "features": (_count, 128, "numbers of a row"),
    "classes": (_count, 4, "classes of rows, which planes separate"),
    "lr": (float, 3e-3, "AdamW's learning rate"),
    "seed": (int, 42, "of the rows, the weights and their order"),
}
_count.__name__ = "number above 0"  # argparse says so of what is none


@dataclass(frozen=True)
class Result:
    """What the training came to. The mean loss `before` and `after`, `bandwidth` of an all-reduce
    in bytes/s (0 for one process), `agree`: every rank holds the same weights."""

    before: float
    after: float
    seconds: float
    bandwidth: float
    world: int
    backend: str
    agree: bool

    @property
    def exit(self) -> Exit:
        if not self.agree:
            return Exit.HARDWARE
        return Exit.DONE if self.after < self.before else Exit.ARTIFACT

    @property
    def problem(self) -> str:
        """What is wrong, or nothing."""
        if not self.agree:
            return "the ranks ended with different weights: what passes between them is not whole"
        return "" if self.after < self.before else "the loss did not improve"

    def __str__(self) -> str:
        gained = 1 - self.after / self.before if self.before else 0.0
        speed = f"{self.bandwidth / 1e9:.2f} GB/s" if self.bandwidth else "none (one process)"
        return (
            f"improvement {gained:.1%} (loss {self.before:.4f} -> {self.after:.4f}), "
            f"{self.seconds:.2f} s, all-reduce {speed}, world size {self.world} ({self.backend}), "
            f"ranks {'agree' if self.agree else 'DISAGREE'}"
        )


@dataclass(frozen=True)
class Processes:
    """How many processes on this node, over which backend, where the nodes meet, and how many
    seconds they wait there for each other."""

    local: int
    backend: str
    where: Rendezvous
    patience: int

    @property
    def world(self) -> int:
        return self.local * self.where.nodes


def is_rank(environ: Mapping[str, str]) -> bool:
    """Whether torchrun or accelerate has started this as one of its ranks."""
    return all(environ.get(name) for name in _RANK)


def count(where: Rendezvous, gpus: int, asked: int | None) -> int:
    """Processes on a node: as the flag or a variable says, else one for each GPU, else one."""
    return asked or where.local or (where.world or 0) // where.nodes or gpus or 1


def problem(wanted: Processes, gpus: int) -> Problem | None:
    if wanted.backend != "nccl" or wanted.local <= gpus:
        return None
    what = f"{wanted.local} processes over NCCL need as many GPUs and {gpus} are visible"
    return Problem("--nproc", f"{what}; lower it, or choose --backend gloo")


def plan(
    flags: Mapping[str, Any],
    wanted: Processes,
    environ: Mapping[str, str],
    folder: Path,
    python: str,
) -> LaunchPlan:
    """torchrun with the module, or the module where this is a rank already or there is no other.
    `folder` gets result.json."""
    words = [f"--{name}={value}" for name, value in flags.items()]
    words += [f"--backend={wanted.backend}", f"--result={folder / 'result.json'}"]
    env = {name: value for name, value in environ.items() if value}
    if not is_rank(environ):
        env = {n: v for n, v in env.items() if n not in VARIABLES and not n.startswith("PET_")}
        if wanted.where.on_loopback:
            env.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host's name may lead nowhere
    torchrun = [] if is_rank(environ) or wanted.world == 1 else _torchrun(wanted)
    env = {"OMP_NUM_THREADS": "1", **env, "PYTHONUNBUFFERED": "1"}
    return LaunchPlan((python, *torchrun, "-m", MODULE, *words), env, folder)


def _torchrun(wanted: Processes) -> list[str]:
    words = ["-m", "torch.distributed.run", f"--nproc-per-node={wanted.local}"]
    if wanted.where.nodes == 1:
        return [*words, "--standalone", "--local-addr=127.0.0.1"]
    host, port = wanted.where.meeting
    return [
        *words, f"--nnodes={wanted.where.nodes}", f"--node-rank={wanted.where.rank}",
        f"--master-addr={host}", f"--master-port={port}", f"--rdzv-conf=timeout={wanted.patience}",
    ]  # fmt: skip

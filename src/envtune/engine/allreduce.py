"""One process of a group that adds up what each of them holds, on this machine: for the doctor.

Over NCCL each process has the GPU of its number and multiplies on it first, since a GPU may be
there and compute nothing.
"""

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from envtune import files

# A rank that never comes is waited for no longer than this, seconds.
_PATIENCE = 60
_NUMBERS = 1 << 20


def add(backend: str, port: int, world: int, rank: int) -> None:
    """Sums a tensor of 4 MiB over `world` processes that meet at a port of loopback. Raises what
    torch raises, and ValueError for a wrong sum."""
    import torch
    from torch import distributed

    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", rank)
        torch.cuda.set_device(device)
        _multiply(torch, device)
    distributed.init_process_group(
        backend,
        init_method=f"tcp://127.0.0.1:{port}",
        world_size=world,
        rank=rank,
        timeout=timedelta(seconds=_PATIENCE),
    )
    held = torch.full((_NUMBERS,), float(rank + 1), device=device)
    distributed.all_reduce(held)
    wanted = world * (world + 1) / 2
    if not bool((held == wanted).all()):
        raise ValueError(f"the sum over {backend} is {held[0].item():g} and not {wanted:g}")
    distributed.destroy_process_group()


def _multiply(torch: Any, device: Any) -> None:
    """Raises ValueError where the GPU multiplies ones to something else."""
    ones = torch.ones((256, 256), device=device)
    if not bool(((ones @ ones) == ones.shape[0]).all()):
        raise ValueError(f"{device} multiplies wrongly")


if __name__ == "__main__":
    add(**files.read_json(Path(sys.argv[1])))

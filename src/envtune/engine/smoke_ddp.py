"""A small training over every process, to see whether they can train together at all.

A two-layer network learns rows that a plane separates, under DistributedDataParallel: what a
training needs of CUDA, NCCL or gloo, and nothing of a model or of data. `torchrun` or accelerate
starts one for each process; alone it is one process.

    python -m envtune.engine.smoke_ddp --epochs 2 --batch 256 --samples 4096 --features 128
        --classes 4 --lr 3e-3 --seed 42 [--backend gloo|nccl] [--result FILE]

Ends with 0 when the loss improved and every rank holds the same weights, else with 6 or 202.
"""

import argparse
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from envtune import files
from envtune.render.smoke_ddp import FLAGS, Result

LOG = logging.getLogger("smoke-ddp")

_HIDDEN = 256
# What is summed over all ranks to see how fast that is: bytes, and how often.
_MESSAGE, _ROUNDS = 32 << 20, 5
# A rank that waits so long for another has lost it, seconds.
_PATIENCE = 60.0


def main() -> int:
    """The exit code: 0, or what is wrong."""
    args = _arguments()
    rank, world = _number("RANK", 0), _number("WORLD_SIZE", 1)
    logging.basicConfig(stream=sys.stdout, level=args.log_level, format="%(message)s", force=True)
    if rank:  # the lines of one rank are everybody's
        LOG.setLevel(logging.WARNING)
    LOG.info("[STEP] %s", " ".join(f"{name}={getattr(args, name)}" for name in FLAGS))
    with _group(args.backend, rank, world) as device:
        result = _trained(args, device)
    if args.result and not rank:
        files.write_json(Path(args.result), asdict(result))
    LOG.info("[RESULT] %s", result)
    LOG.info("[DONE] %s", result.problem or "the processes train together")
    return int(result.exit)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    for name, (kind, default, _) in FLAGS.items():
        parser.add_argument(f"--{name}", type=kind, default=default)
    gpus = torch.cuda.is_available()
    parser.add_argument("--backend", default="nccl" if gpus else "gloo", choices=("gloo", "nccl"))
    parser.add_argument("--result", default="")
    parser.add_argument("--log-level", default="INFO", choices=("DEBUG", "INFO"))
    return parser.parse_args()


def _number(name: str, default: int) -> int:
    return int(os.environ.get(name) or default)


@contextmanager
def _group(backend: str, rank: int, world: int) -> Iterator[torch.device]:
    """The process group of all ranks; gives this rank's device."""
    device = torch.device("cpu")
    if backend == "nccl":
        device = torch.device("cuda", _number("LOCAL_RANK", 0))
        torch.cuda.set_device(device)
    LOG.info("[STEP] joining %d processes over %s", world, backend)
    alone = {"store": dist.HashStore(), "rank": 0, "world_size": 1} if world == 1 else {}
    dist.init_process_group(backend, timeout=timedelta(seconds=_PATIENCE), **alone)
    # Every rank's, so that one that is missing is seen to be.
    print(f"[DDP] rank {rank} of {world} on {os.uname().nodename}: {device}", flush=True)
    try:
        yield device
    finally:
        dist.destroy_process_group()
        LOG.info("[DDP] the processes have parted")


def _trained(args: argparse.Namespace, device: torch.device) -> Result:
    torch.manual_seed(args.seed)
    rows = _rows(args)
    sampler: DistributedSampler[tuple[torch.Tensor, ...]] = DistributedSampler(rows, seed=args.seed)
    loader = DataLoader(rows, batch_size=args.batch, sampler=sampler)
    LOG.info(
        "[DATA] %d rows of %d features in %d classes; %d batches of at most %d for each process",
        args.samples, args.features, args.classes, len(loader), args.batch,
    )  # fmt: skip
    model = _model(args, device)
    before = _loss(model, rows, device)
    seconds = _train(args, model, loader, sampler, device)
    after, same = _loss(model, rows, device), _agreed(model)
    return Result(
        before=before, after=after, seconds=seconds,
        bandwidth=_bandwidth(device), world=dist.get_world_size(), backend=dist.get_backend(),
        agree=same,
    )  # fmt: skip


def _rows(args: argparse.Namespace) -> TensorDataset:
    """Rows (samples x features) and the class that a random plane puts each into."""
    drawn = torch.Generator().manual_seed(args.seed)
    rows = torch.randn(args.samples, args.features, generator=drawn)
    planes = torch.randn(args.features, args.classes, generator=drawn)
    return TensorDataset(rows, (rows @ planes).argmax(dim=1))


def _model(args: argparse.Namespace, device: torch.device) -> DistributedDataParallel:
    layers = nn.Sequential(
        nn.Linear(args.features, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, args.classes)
    ).to(device)
    count = sum(parameter.numel() for parameter in layers.parameters())
    LOG.info("[MODEL] %d parameters, AdamW, learning rate %g", count, args.lr)
    return DistributedDataParallel(layers, device_ids=[device] if device.type == "cuda" else None)


def _train(
    args: argparse.Namespace,
    model: DistributedDataParallel,
    loader: DataLoader[tuple[torch.Tensor, ...]],
    sampler: DistributedSampler[tuple[torch.Tensor, ...]],
    device: torch.device,
) -> float:
    """Trains; the seconds that its steps took."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    LOG.info("[STEP] training")
    started = time.monotonic()
    for epoch in range(args.epochs):
        sampler.set_epoch(epoch)
        began, total = time.monotonic(), torch.zeros((), device=device)
        for number, (rows, labels) in enumerate(loader):
            loss = nn.functional.cross_entropy(model(rows.to(device)), labels.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach()
            LOG.debug(
                "[BATCH] %d of epoch %d: %s, loss %.4f", number, epoch + 1, [*rows.shape], loss
            )
        seconds = time.monotonic() - began
        seen = len(loader) * args.batch * dist.get_world_size()
        LOG.info("[TRAIN] epoch %d: about %.0f rows/s", epoch + 1, seen / max(seconds, 1e-9))
        mean = (total / len(loader)).item()
        LOG.info("[EPOCH] %d of %d: loss %.4f, %.2f s", epoch + 1, args.epochs, mean, seconds)
    return round(time.monotonic() - started, 3)


def _loss(model: DistributedDataParallel, rows: TensorDataset, device: torch.device) -> float:
    """The mean loss over this rank's share of all rows, averaged over the ranks."""
    share = slice(dist.get_rank(), None, dist.get_world_size())
    inputs, labels = (tensor[share].to(device) for tensor in rows.tensors)
    sums = torch.zeros(2, dtype=torch.float64, device=device)
    with torch.inference_mode():
        sums[0] = nn.functional.cross_entropy(model.module(inputs), labels, reduction="sum")
        sums[1] = len(labels)
    dist.all_reduce(sums)
    mean: float = (sums[0] / sums[1]).item()
    return mean


def _agreed(model: DistributedDataParallel) -> bool:
    """Whether every rank holds the same weights, to the bit."""
    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    digest = hashlib.sha256(weights.cpu().numpy().tobytes()).digest()
    mine = torch.tensor(list(digest), dtype=torch.uint8, device=weights.device)
    found = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(found, mine)
    return all(torch.equal(mine, other) for other in found)


def _bandwidth(device: torch.device) -> float:
    """Bytes a second over each process's link while all sum one message: 2 (n-1)/n of it pass
    there, as NCCL's own tests count. 0 for one process, which has nobody to talk to."""
    if (world := dist.get_world_size()) == 1:
        return 0.0
    message = torch.zeros(_MESSAGE // 4, device=device)
    dist.all_reduce(message)
    _wait(device)
    began = time.monotonic()
    for _ in range(_ROUNDS):
        dist.all_reduce(message)
    _wait(device)
    passed: float = _ROUNDS * _MESSAGE * 2 * (world - 1) / world
    return passed / max(time.monotonic() - began, 1e-9)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    dist.barrier()


if __name__ == "__main__":
    sys.exit(main())

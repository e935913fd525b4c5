"""What planning packed rows costs beside Axolotl's sampler, and how full the rows are.

Run by `make bench-packing`. Lengths are lognormal; Axolotl's libraries are imported, as they are
in a training: its sampler collects their garbage each time it packs. CPU seconds of one thread.
"""

import logging
import time
from collections.abc import Callable
from typing import Any

import axolotl.cli.config  # what a training has imported
import axolotl.core.builders
import axolotl.train  # noqa: F401
import numpy as np
from axolotl.utils.samplers import MultipackBatchSampler
from torch.utils.data import RandomSampler

from envtune.engine.packing.plan import Batch, Shape, plan

# Documents, their median length, what a row holds; tokens.
CASES = (
    (20_000, 156, 2048), (20_000, 553, 4096), (200_000, 156, 2048), (200_000, 553, 4096),
    (200_000, 553, 16384),
)  # fmt: skip
ROWS, BIN = 8, 200


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process, and what came of them."""
    begin = time.process_time()
    made = work()
    return time.process_time() - begin, made


def fill(lengths: Any, batches: list[Batch], capacity: int) -> float:
    """The part of the rows that holds tokens, in percent; documents that are dropped hold none."""
    rows = [row for batch in batches for row in batch]
    return 100 * sum(int(lengths[row].sum()) for row in rows) / (len(rows) * capacity)


def measure(count: int, median: int, capacity: int) -> None:
    drawn = np.random.default_rng(7).lognormal(np.log(median), 0.8, count).astype(int)
    lengths = np.clip(drawn, 4, capacity)
    theirs = MultipackBatchSampler(
        RandomSampler(lengths), batch_size=ROWS, batch_max_len=capacity, lengths=lengths,
        bin_size=BIN, num_processes=1,
    )  # fmt: skip
    once, batches = seconds(theirs.generate_batches)
    asked, _ = seconds(lambda: len(theirs))
    planning, made = seconds(lambda: plan(lengths, Shape(capacity, ROWS, documents=BIN)))
    dealing, dealt = seconds(lambda: made.deal(7, 0))
    kept = sum(len(row) for batch in batches for row in batch)
    print(
        f"{count:>7} of {median}, rows of {capacity:>5}: Axolotl {once:.2f} an epoch, {asked:.2f} "
        f"a len(), {fill(lengths, batches, capacity):.2f} % full, {count - kept} dropped; "
        f"planned {planning:.3f}, dealt {dealing:.3f} an epoch, "
        f"{fill(lengths, dealt, capacity):.2f} % full, none dropped"
    )


if __name__ == "__main__":
    logging.disable()
    warm = np.full(100, 9)
    len(MultipackBatchSampler(RandomSampler(warm), 1, 64, warm, BIN, num_processes=1))  # compiles
    for case in CASES:
        measure(*case)

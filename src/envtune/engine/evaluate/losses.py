"""The loss of rows, weighted by tokens: each labelled token counts once, whatever its batch."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from envtune.errors import Exit, Problem, Refused

IGNORED = -100
# Padded tokens of a batch. One longer row is a batch of its own, as it was in training.
_TOKENS = 4096

# Token ids and labels of one row, of the same length.
Row = tuple[Sequence[int], Sequence[int]]


def sums(
    model: Any, rows: Sequence[Row], shown: Callable[[int], None] = lambda done: None
) -> list[tuple[float, int]]:
    """Each row's summed negative log-likelihood in nats, and how many tokens it is over.

    `shown` hears how many rows are done.
    """
    found: dict[int, tuple[float, int]] = {}
    for batch in _batches(rows):
        for index, total in zip(batch, _batch(model, [rows[i] for i in batch]), strict=True):
            found[index] = total
        shown(len(found))
    return [found[index] for index in range(len(rows))]


def mean(totals: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Loss and perplexity over all tokens. Raises Refused for a loss that is no number."""
    loss = math.fsum(total for total, _ in totals) / sum(count for _, count in totals)
    if not math.isfinite(loss):
        raise Refused([Problem("", f"the validation loss is {loss}", Exit.ARTIFACT)])
    return {"loss": round(loss, 6), "perplexity": round(math.exp(min(loss, 700)), 4)}


def _batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Indices of rows of about the same length, so that little is padding."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda i: len(rows[i][0])):
        if batch and (len(batch) + 1) * len(rows[index][0]) > _TOKENS:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _batch(model: Any, rows: Sequence[Row]) -> Iterator[tuple[float, int]]:
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), IGNORED)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, (tokens, wanted) in enumerate(rows):
        ids[number, : len(tokens)] = torch.tensor(tokens)
        labels[number, : len(tokens)] = torch.tensor(wanted)
        mask[number, : len(tokens)] = 1
    device = model.device
    with torch.inference_mode():
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        for number in range(len(rows)):
            wanted = labels[number, 1:].to(logits.device)
            kept = wanted != IGNORED
            picked = logits[number, :-1][kept].float()
            total = torch.nn.functional.cross_entropy(picked, wanted[kept], reduction="sum")
            yield total.item(), int(kept.sum())

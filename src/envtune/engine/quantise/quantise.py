"""Quantises a whole model: python -m envtune.engine.quantise.quantise ORDER.json

Runs in the quantise environment. The order names the `model`, the `target` to make and the
`scheme`; the `run` whose rows to look at, how many `samples` of them, of what `length` in
tokens, drawn by which `seed`; the `device`, and whether the model's own code is `trusted`.
What can be refused is, before a weight is read. The files are written beside the target and
opened again: only a model that still answers gets its name.
"""

import os
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune import files
from envtune.artifacts import checkpoints, modelfiles
from envtune.checks.quantisable import SCHEME
from envtune.engine.export.merge import beside
from envtune.engine.quantise import schemes
from envtune.engine.quantise.schemes import Plan
from envtune.errors import Exit, Problem, Refused
from envtune.runs import prepared

RECORD = "quantise.json"
# How many rows both models are asked, and what share of the perplexity may be added: 4 bits
# cost some hundredths, and a model that is broken knows no more than a guess.
_ASKED, _WORSE = 16, 1.0


@dataclass(frozen=True)
class Order:
    """What is to be made of what. `length` in tokens."""

    model: Path
    target: Path
    run: Path
    scheme: str
    samples: int
    length: int
    seed: int
    device: str
    trusted: bool

    @classmethod
    def read(cls, path: Path) -> "Order":
        """Raises OSError, ValueError or LookupError where it is none."""
        told = modelfiles.read_json(path)
        return cls(**{**told, **{name: Path(told[name]) for name in ("model", "target", "run")}})

    @property
    def asked(self) -> dict[str, Any]:
        """What tells one quantisation of the model from another."""
        return {name: getattr(self, name) for name in ("scheme", "samples", "length", "seed")}


def quantise(order: Order) -> None:
    """Quantises, or finds that it was done before. Raises Refused, OSError."""
    if _record(order.target).get("asked") == order.asked:
        print(f"quantise: {order.target} was made before", flush=True)
        return
    plan = schemes.plan(order.model, order.scheme, trusted=order.trusted)
    rows = read_rows(order)
    print(f"quantise: {order.scheme} by {plan.method}, {len(rows)} rows", flush=True)
    aside = order.target.with_name(f".{order.target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    before = _compress(order, plan, rows, aside)
    after = perplexity(_opened(order, aside), rows[:_ASKED])
    _judge(before, after)
    figures = {
        "scheme": order.scheme, "method": plan.method, "group_size": plan.group,
        "samples": len(rows), "perplexity_before": before, "perplexity_after": after,
        "bytes_before": _size(order.model), "bytes_after": _size(aside),
    }  # fmt: skip
    files.write_json(aside / RECORD, {"asked": order.asked, "made": figures})
    _sync(aside)
    checkpoints.move(aside, order.target)


def _record(folder: Path) -> dict[str, Any]:
    try:
        return modelfiles.read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}  # a folder that something else made, or none


def read_rows(order: Order) -> list[list[int]]:
    """Token ids of a random choice among the rows that were trained. Raises Refused."""
    from datasets import load_from_disk

    if (folder := prepared.trained(order.run)) is None:
        raise _useless(f"those of {order.run} are gone")
    data = load_from_disk(str(folder))
    if "input_ids" not in data.column_names:
        raise _useless(f"they have no tokens but {', '.join(data.column_names)}")
    chosen = random.Random(order.seed).sample(range(len(data)), min(order.samples, len(data)))
    rows = [ids[: order.length] for ids in data.select(chosen)["input_ids"]]
    rows = [row for row in rows if len(row) > 1]  # one token alone predicts nothing
    if not rows:
        raise _useless("none has more than one token")
    return rows


def _useless(why: str) -> Refused:
    what = f"the quantisation is tried on the prepared rows, and {why}"
    return Refused([Problem(SCHEME, what, Exit.DATA)])


def _compress(order: Order, plan: Plan, rows: list[list[int]], aside: Path) -> float:
    """Writes the quantised model with what belongs to it. Returns the perplexity before."""
    import torch
    from llmcompressor import oneshot
    from llmcompressor.core import reset_session
    from torch.utils.data import DataLoader

    _leave_unpinned()
    model = _opened(order, order.model)
    before = perplexity(model, rows[:_ASKED])
    # One by one: they are of different lengths, and padding would be calibrated on.
    inputs: Any = [{"input_ids": torch.tensor([row])} for row in rows]
    data = None if plan.method == schemes.ROUNDING else DataLoader(inputs, batch_size=None)
    oneshot(
        model=model,
        dataset=data,
        num_calibration_samples=len(rows),
        recipe=schemes.recipe(plan),
        trust_remote_code_model=order.trusted,
    )
    model.save_pretrained(aside)
    reset_session()  # it would hold this model while the next one is opened
    for source in beside(order.model, order.model):
        shutil.copyfile(source, aside / source.name)
    return before


def _leave_unpinned() -> None:
    """AWQ pins what it keeps for the way to an accelerator, and torch raises where there is none.

    Seen in llmcompressor 0.14.0.
    """
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        IntermediatesCache._pin_intermediate = classmethod(lambda cls, intermediate: None)


def _opened(order: Order, folder: Path) -> Any:
    """A model in the type that it is stored in; on the GPU as much of it as fits there."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype="auto",
        device_map="auto" if torch.cuda.is_available() else None,
        trust_remote_code=order.trusted,
    ).eval()


def perplexity(model: Any, rows: list[list[int]]) -> float:
    """Of how many tokens a model is as unsure as of the next one of the rows. Broken: NaN."""
    import torch

    total = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row], device=model.device)
            total += model(input_ids=ids, labels=ids).loss.double().cpu() * (len(row) - 1)
    return float((total / sum(len(row) - 1 for row in rows)).exp())


def _judge(before: float, after: float) -> None:
    """Raises Refused where the quantised model is broken: worse than it may be, or NaN."""
    told = f"the perplexity of rows that were trained was {before:.4g} and is {after:.4g}"
    print(f"quantise: {told}", flush=True)
    if not after <= before * (1 + _WORSE):
        what = f"{told}; the model itself is kept, use another scheme or unset it"
        raise Refused([Problem(SCHEME, what, Exit.ARTIFACT)])


def _size(folder: Path) -> int:
    """Bytes of the weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _sync(folder: Path) -> None:
    """Makes every file last, and readable for a server that is another user."""
    for path in folder.iterdir():
        path.chmod(0o644)  # weights are written for their owner alone
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    checkpoints.sync_folder(folder)


def main() -> int:
    order = Order.read(Path(sys.argv[1]))
    if order.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch reads it
    # Before torch reads it: many small steps follow each other, and waiting threads would spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        quantise(order)
    except Refused as refused:
        print(refused, file=sys.stderr, flush=True)
        return refused.exit
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())

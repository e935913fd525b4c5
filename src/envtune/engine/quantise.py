"""Quantises a whole model: python -m envtune.engine.quantise ORDER.json

Runs in the quantise environment. The order names the `model`, the `target` to make and the
`scheme`; the prepared `rows` to look at, how many `samples` of them, of what `length` in
tokens, drawn by which `seed`; the `device`, and whether the model's own code is `trusted`.
What can be refused is, before a weight is read. The files are written beside the target and
opened again: only a model that still answers gets its name.
"""

import json
import os
import random
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune import checkpoints, files, modelfiles
from envtune.engine.merge import beside
from envtune.errors import Exit, Problem, Refused

RECORD = "quantise.json"
# What llmcompressor calls the schemes. 4 bits are asymmetric; activations have a scale a token.
_PRESETS = {"w4a16": "W4A16_ASYM", "fp8": "FP8_DYNAMIC", "w8a8": "W8A8"}
# How many inputs share a 4-bit scale, the best first. vLLM's kernels know no other.
_GROUPS = (128, 64, 32)
# How far an activation's outliers move into the weights: the share that SmoothQuant advises.
_SMOOTHING = 0.8
# Rows that both models are asked, and how much more perplexed the quantised one may be.
_ASKED, _WORST = 16, 2.0


@dataclass(frozen=True)
class Order:
    """What is to be made of what. `length` in tokens."""

    model: Path
    target: Path
    rows: Path
    scheme: str
    samples: int
    length: int
    seed: int
    device: str
    trusted: bool

    @classmethod
    def read(cls, path: Path) -> "Order":
        """Raises OSError, ValueError or TypeError where it is none."""
        told = modelfiles.read_json(path)
        return cls(**{**told, **{name: Path(told[name]) for name in ("model", "target", "rows")}})


@dataclass(frozen=True)
class Plan:
    """By which `method`, in groups of how many inputs (None: whole rows), without which layers."""

    method: str
    group: int | None
    ignore: list[str]


def quantise(order: Order, told: Any) -> None:
    """Quantises, or finds that it was done before. Raises Refused, OSError."""
    if _record(order.target).get("order") == told:
        print(f"quantise: {order.target} was made before", flush=True)
        return
    made = plan(order)
    rows = read_rows(order)
    print(f"quantise: {order.scheme} by {made.method}, {len(rows)} rows", flush=True)
    aside = order.target.with_name(f".{order.target.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    before = _compress(order, made, rows, aside)
    after = perplexity(_opened(order, aside), rows[:_ASKED])
    print(f"quantise: perplexity {before:.4g}, quantised {after:.4g}", flush=True)
    if not after < _WORST * before:
        what = (
            f"the perplexity of {min(len(rows), _ASKED)} rows was {before:.4g} and is {after:.4g}"
        )
        raise Refused([Problem("", f"{what}; the model is whole without it", Exit.ARTIFACT)])
    figures = {
        "scheme": order.scheme, "method": made.method, "group_size": made.group,
        "samples": len(rows), "perplexity_before": before, "perplexity_after": after,
        "bytes_before": _size(order.model), "bytes_after": _size(aside),
    }  # fmt: skip
    files.write_json(aside / RECORD, {"order": told, "made": figures})
    _sync(aside)
    checkpoints.move(aside, order.target)


def _record(folder: Path) -> dict[str, Any]:
    try:
        return modelfiles.read_json(folder / RECORD)
    except (OSError, ValueError):
        return {}  # a folder that something else made, or none


def plan(order: Order) -> Plan:
    """How to quantise a model, told by its layers' shapes. Raises Refused."""
    from llmcompressor.modifiers.utils.pytorch_helpers import is_moe_model

    blank = _blank(order)
    if is_moe_model(blank):
        _refuse("it is a mixture of experts, which are no layers of their own")
    output = blank.get_output_embeddings()
    ignore = [name for name, layer in blank.named_modules() if layer is output]
    group = group_size(widths(blank, ignore)) if order.scheme == "w4a16" else None
    return Plan(_method(order.scheme, type(blank).__name__), group, ignore)


def _blank(order: Order) -> Any:
    """The model without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    code = {"trust_remote_code": order.trusted}
    config = AutoConfig.from_pretrained(order.model, **code)
    with torch.device("meta"):
        blank = AutoModelForCausalLM.from_config(config, **code)
    kind = type(blank).__name__
    if kind not in (config.architectures or [kind]):
        _refuse(f"it is a {config.architectures[0]}, and only language models are quantised")
    return blank


def _refuse(message: str, exit: Exit = Exit.CONFIG) -> None:
    raise Refused([Problem("SFT_QUANTISE", message, exit)])


def widths(model: Any, ignore: list[str]) -> dict[str, int]:
    """By name of each layer that is to be quantised how many inputs it has."""
    from torch.nn import Linear

    layers = {n: m for n, m in model.named_modules() if isinstance(m, Linear) and n not in ignore}
    if not layers:
        _refuse(f"{type(model).__name__} has no linear layers to quantise")
    return {name: layer.in_features for name, layer in layers.items()}


def group_size(widths: dict[str, int]) -> int:
    """The largest group that every layer's inputs come out even in. Raises Refused."""
    for size in _GROUPS:
        if all(width % size == 0 for width in widths.values()):
            return size
    name, width = next((n, w) for n, w in widths.items() if w % _GROUPS[-1])
    _refuse(f"{name} has {width} inputs, no multiple of {_GROUPS[-1]}; use fp8 or w8a8")
    raise AssertionError


def _method(scheme: str, architecture: str) -> str:
    """AWQ and SmoothQuant have to know which layer feeds which; GPTQ takes any."""
    from llmcompressor.modifiers.transform.awq import dynamic_mappings as awq
    from llmcompressor.modifiers.transform.smoothquant import dynamic_mappings as smooth

    if scheme == "fp8":
        return "rounding"
    if scheme == "w4a16":
        known = {*awq.AWQ_MAPPING_REGISTRY, *awq.AWQ_DYNAMIC_MAPPING_REGISTRY}
        return "awq" if architecture in known else "gptq"
    known = {*smooth.MAPPINGS_REGISTRY, *smooth.SMOOTHQUANT_DYNAMIC_MAPPING_REGISTRY}
    return "smoothquant and gptq" if architecture in known else "gptq"


def read_rows(order: Order) -> list[list[int]]:
    """Token ids of a random choice among the rows that were trained. Raises Refused."""
    from datasets import load_from_disk

    # Those that are held back to evaluate are prepared after them.
    prepared = sorted(order.rows.glob("*/state.json"), key=lambda path: path.stat().st_mtime)
    if not prepared:
        _refuse(f"{order.rows} holds no prepared rows", Exit.DATA)
    data = load_from_disk(str(prepared[0].parent))
    if "input_ids" not in data.column_names:
        _refuse(f"the prepared rows have no tokens but {', '.join(data.column_names)}", Exit.DATA)
    chosen = random.Random(order.seed).sample(range(len(data)), min(order.samples, len(data)))
    rows = [ids[: order.length] for ids in data.select(chosen)["input_ids"]]
    rows = [row for row in rows if len(row) > 1]  # one token alone predicts nothing
    if not rows:
        _refuse("no prepared row has more than one token", Exit.DATA)
    return rows


def _compress(order: Order, made: Plan, rows: list[list[int]], aside: Path) -> float:
    """Writes the quantised model with what belongs to it. Returns the perplexity before."""
    import torch
    from llmcompressor import oneshot
    from torch.utils.data import DataLoader

    _leave_unpinned()
    model = _opened(order, order.model)
    before = perplexity(model, rows[:_ASKED])
    # Rows one by one: they are of different lengths, and padding would be calibrated on.
    inputs = [{"input_ids": torch.tensor([row])} for row in rows]
    data = None if made.method == "rounding" else DataLoader(inputs, batch_size=None)
    oneshot(
        model=model, dataset=data, num_calibration_samples=len(rows), recipe=_recipe(order, made)
    )
    model.save_pretrained(aside)
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


def _recipe(order: Order, made: Plan) -> list[Any]:
    from compressed_tensors.quantization import preset_name_to_scheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform import SmoothQuantModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    scheme = preset_name_to_scheme(_PRESETS[order.scheme], ["Linear"])
    if made.group:
        scheme.weights.group_size = made.group
    layers: dict[str, Any] = {"config_groups": {"group_0": scheme}, "ignore": made.ignore}
    if made.method == "awq":
        return [AWQModifier(), QuantizationModifier(**layers)]
    if made.method == "rounding":
        return [QuantizationModifier(**layers)]
    smooth = [SmoothQuantModifier(smoothing_strength=_SMOOTHING)] * made.method.startswith("smooth")
    return [*smooth, GPTQModifier(**layers)]


def _opened(order: Order, folder: Path) -> Any:
    """A model in the type that it is stored in, on the GPU as far as it fits there."""
    import torch
    from transformers import AutoModelForCausalLM

    place = "auto" if torch.cuda.is_available() else None
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype="auto", device_map=place, trust_remote_code=order.trusted
    ).eval()


def perplexity(model: Any, rows: list[list[int]]) -> float:
    """How surprised a model is by a token of the rows, 1 being not at all. NaN: it is broken."""
    import torch

    total = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for row in rows:
            ids = torch.tensor([row], device=model.device)
            total += model(input_ids=ids, labels=ids).loss.double().cpu() * (len(row) - 1)
    return float((total / sum(len(row) - 1 for row in rows)).exp())


def _size(folder: Path) -> int:
    """Bytes of the weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _sync(folder: Path) -> None:
    """Makes every file last and readable for a server that is another user."""
    for path in folder.iterdir():
        path.chmod(0o644)  # safetensors are written for their owner alone
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    checkpoints.sync_folder(folder)


def main() -> int:
    path = Path(sys.argv[1])
    order = Order.read(path)
    if order.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch reads it
    try:
        quantise(order, json.loads(path.read_text()))
    except Refused as refused:
        print(f"quantise: refused: {refused}", file=sys.stderr, flush=True)
        return refused.exit
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())

"""How a model is quantised, told by its configuration: by which method, in which groups.

Nothing of it reads a weight, so that a model that does not fit is refused at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envtune.artifacts.modelfiles import read_json
from envtune.checks.quantisable import SCHEME, unfit
from envtune.errors import Problem, Refused

# What llmcompressor calls the schemes. 4 bits are asymmetric; activations have a scale a token.
_PRESETS = {"w4a16": "W4A16_ASYM", "fp8": "FP8_DYNAMIC", "w8a8": "W8A8"}
# How many inputs may share a 4-bit scale, the smallest model first: what vLLM has kernels for.
_GROUPS = (128, 64, 32)
# The share of an outlier that SmoothQuant moves from the activations into the weights.
_SMOOTHING = 0.8
ROUNDING, AWQ, GPTQ, SMOOTHED = "rounding", "awq", "gptq", "smoothquant and gptq"


@dataclass(frozen=True)
class Plan:
    """The scheme, the method, how many inputs share a scale (None: all), the layers left out."""

    scheme: str
    method: str
    group: int | None
    ignore: list[str]


def plan(folder: Path, scheme: str, *, trusted: bool) -> Plan:
    """The way for a model. `trusted`: its own code may run. Raises Refused."""
    if why := unfit(read_json(folder / "config.json")):
        raise _refused(f"the model {why}")
    blank = _blank(folder, trusted)
    output = blank.get_output_embeddings()
    ignore = [name for name, layer in blank.named_modules() if layer is output]
    inputs = widths(blank, ignore)
    group = group_size(inputs) if scheme == "w4a16" else None
    return Plan(scheme, _method(scheme, type(blank).__name__), group, ignore)


def _refused(message: str) -> Refused:
    return Refused([Problem(SCHEME, message)])


def _blank(folder: Path, trusted: bool) -> Any:
    """The model without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trusted)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trusted)


def widths(model: Any, ignore: list[str]) -> dict[str, int]:
    """How many inputs each layer has that is to be quantised, by its name. Raises Refused."""
    from torch.nn import Linear

    layers = {n: m for n, m in model.named_modules() if isinstance(m, Linear) and n not in ignore}
    if not layers:
        raise _refused(f"{type(model).__name__} has no linear layers to quantise")
    return {name: layer.in_features for name, layer in layers.items()}


def group_size(widths: Mapping[str, int]) -> int:
    """The largest group into which the inputs of every layer divide. Raises Refused."""
    for size in _GROUPS:
        if not any(width % size for width in widths.values()):
            return size
    name, width = next((n, w) for n, w in widths.items() if w % _GROUPS[-1])
    what = f"w4a16 takes groups of {_GROUPS[-1]} inputs at least, and {name} has {width}"
    raise _refused(f"{what}; use fp8 or w8a8")


def _method(scheme: str, architecture: str) -> str:
    """AWQ and SmoothQuant have to know which layer feeds which; GPTQ takes any."""
    from llmcompressor.modifiers.transform.awq import dynamic_mappings as awq
    from llmcompressor.modifiers.transform.smoothquant import dynamic_mappings as smooth

    if scheme == "fp8":
        return ROUNDING
    if scheme == "w4a16":
        known = {*awq.AWQ_MAPPING_REGISTRY, *awq.AWQ_DYNAMIC_MAPPING_REGISTRY}
        return AWQ if architecture in known else GPTQ
    known = {*smooth.MAPPINGS_REGISTRY, *smooth.SMOOTHQUANT_DYNAMIC_MAPPING_REGISTRY}
    return SMOOTHED if architecture in known else GPTQ


def recipe(made: Plan) -> list[Any]:
    """The plan in llmcompressor's words, a modifier after the other."""
    from compressed_tensors.quantization import preset_name_to_scheme
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform import SmoothQuantModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    scheme = preset_name_to_scheme(_PRESETS[made.scheme], ["Linear"])
    if made.group:
        scheme.weights.group_size = made.group
    layers = {"config_groups": {"group_0": scheme}, "ignore": made.ignore}
    return {
        ROUNDING: lambda: [QuantizationModifier(**layers)],
        AWQ: lambda: [AWQModifier(), QuantizationModifier(**layers)],
        GPTQ: lambda: [GPTQModifier(**layers)],
        SMOOTHED: lambda: [
            SmoothQuantModifier(smoothing_strength=_SMOOTHING),
            GPTQModifier(**layers),
        ],
    }[made.method]()

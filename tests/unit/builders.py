"""What the unit tests are made of: machines, facts, settings, configurations, weights."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from envtune.checks import preflight
from envtune.errors import Problem, Refused
from envtune.machine.hardware import Gpu, Machine
from envtune.resolve.config import Facts, RunConfig, Tracking, Value
from envtune.resolve.facts import DataFacts, ModelFacts
from envtune.resolve.rules import resolve
from envtune.settings import loading, retired, sources
from envtune.settings.own import OWN
from envtune.settings.typed import Settings

GIB = 2**30
CPU = Machine((), 4, 16 * GIB)
AMPERE = Machine((Gpu("NVIDIA A100-SXM4-40GB", 40 * GIB, (8, 0)),), 16, 128 * GIB)
HOPPER = Machine((Gpu("NVIDIA H100 80GB HBM3", 80 * GIB, (9, 0)),), 16, 128 * GIB)
TURING = Machine((Gpu("Tesla T4", 16 * GIB, (7, 5)),), 8, 32 * GIB)
UNTRACKED = Tracking()

MODEL_AND_DATA = {
    "AXOLOTL_BASE_MODEL": "acme/Tiny-Llama",
    "AXOLOTL_DATASETS": '[{"path": "acme/rows", "type": "alpaca"}]',
}


def load(environ: Mapping[str, str], arguments: Sequence[str] = ()) -> Settings:
    """The settings of an environment and a command line."""
    return loading.load(sources.read(arguments, environ))


def values(environ: Mapping[str, str], arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Axolotl's keys alone, without where they came from."""
    return {key: s.value for key, s in load(environ, arguments).axolotl.items()}


def problems(environ: Mapping[str, str], arguments: Sequence[str] = ()) -> list[str]:
    """The lines that the user reads; empty where nothing is refused."""
    try:
        load(environ, arguments)
    except Refused as refused:
        return [str(problem) for problem in refused.problems]
    return []


def make_facts(
    machine: Machine = CPU,
    columns: Sequence[Sequence[str]] = ((),),
    tracking: Tracking = UNTRACKED,
    *,
    test_columns: Sequence[Sequence[str]] = ((),),
    local: bool = False,
    **model: Any,
) -> Facts:
    """Facts of a machine; `columns` of each data set; `model` is its config.json."""
    kind = "json" if local else None
    return Facts(
        machine=machine,
        model=ModelFacts("acme/Tiny-Llama", local, model),
        data=tuple(DataFacts("rows.jsonl", local, tuple(c), kind) for c in columns),
        test_data=tuple(DataFacts("held.jsonl", local, tuple(c), kind) for c in test_columns),
        device="cuda" if machine.gpus else "cpu",
        local=local,
        tracking=tracking,
    )


def resolved(environ: Mapping[str, str] | None = None, facts: Facts | None = None) -> RunConfig:
    """The configuration of MODEL_AND_DATA and more variables."""
    given = retired.translated(load({**MODEL_AND_DATA, **(environ or {})}))
    return resolve(given, facts or make_facts())


def of_settings(settings: Settings) -> list[Problem]:
    """What is wrong with the settings alone."""
    return [problem for check in preflight.OF_SETTINGS for problem in check(settings)]


def here(settings: Settings, facts: Facts) -> list[Problem]:
    """What is wrong with the settings on a machine, with a model and data."""
    return [problem for check in preflight.HERE for problem in check(settings, facts)]


def run_config(
    axolotl: Mapping[str, Any] | None = None, output_dir: str | None = None, **own: Any
) -> RunConfig:
    """A configuration made by hand, past every rule."""
    keys = {"base_model": "acme/Tiny-Llama", "datasets": [{"path": "acme/rows"}], **(axolotl or {})}
    return RunConfig(
        axolotl={key: Value(value, f"AXOLOTL_{key.upper()}") for key, value in keys.items()},
        own={name: Value(own.get(name, OWN[name].default), name) for name in OWN},
        device="cpu",
        output_dir=output_dir,
    )


def write_weights(path: Path, tensors: Mapping[str, tuple[str, list[int], bytes]]) -> None:
    """A safetensors file: dtype, shape and bytes of each tensor."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, (dtype, shape, data) in tensors.items():
        offsets = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def write_model(folder: Path, **more: str) -> None:
    """The smallest folder that passes for a model's; `more` files by their text."""
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(folder / "model.safetensors", {"w": floats(1.0)})
    for name, text in {"config.json": "{}", "tokenizer.json": "{}", **more}.items():
        (folder / name).write_text(text)


def floats(*numbers: float) -> tuple[str, list[int], bytes]:
    """A float32 tensor for `write_weights`."""
    return "F32", [len(numbers)], struct.pack(f"<{len(numbers)}f", *numbers)

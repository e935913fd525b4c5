"""Every broken adapter gets one line, from the export and from the merge alike.

The line comes before anything heavy starts and before anything is written.
"""

import json
import os
import shutil
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from envtune.engine.export.export import RECORD
from envtune.errors import Exit
from envtune.render import launch
from tests.harness import Result, clean_environ, execute, read
from tests.test_export import bases, edit, kind_of, trained, weights  # noqa: F401

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
Tensors = dict[str, torch.Tensor]
Damage = Callable[[Path], Any]


def config(**changes: Any) -> Damage:
    return lambda folder: edit(folder / CONFIG, **changes)


def written(name: str, text: str) -> Damage:
    return lambda folder: (folder / name).write_text(text)


def gone(name: str) -> Damage:
    return lambda folder: [path.unlink() for path in folder.glob(name)]


def cut(size: int) -> Damage:
    return lambda folder: os.truncate(folder / WEIGHTS, size)


def loop(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).symlink_to(WEIGHTS)


def header(entries: Any) -> Damage:
    text = json.dumps(entries) if isinstance(entries, dict) else entries

    def write(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text.encode())

    return write


def garbled(folder: Path) -> None:
    """One byte of the header, past the opening brace."""
    with (folder / WEIGHTS).open("r+b") as stream:
        stream.seek(40)
        stream.write(b"\xff")


def every(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def edited(tensors: Tensors) -> None:
        for name in [name for name in tensors if part in name]:
            tensors[name] = change(tensors[name]).contiguous()

    return weights(edited)


def one(part: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Damage:
    def edited(tensors: Tensors) -> None:
        name = next(name for name in sorted(tensors) if part in name)
        tensors[name] = change(tensors[name]).contiguous()

    return weights(edited)


def lost(part: str) -> Damage:
    return weights(lambda tensors: tensors.pop(next(n for n in sorted(tensors) if part in n)))


def renamed(old: str, new: str) -> Damage:
    def edited(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.replace(old, new)] = tensors.pop(name)

    return weights(edited)


NAN, INFINITY = float("nan"), float("inf")
DEEP = '{"a":' * 100_000
# Which adapter, what is done to it, what is said of it.
BROKEN: dict[str, tuple[str, Damage, str]] = {
    "no folder": ("plain", shutil.rmtree, "is not there"),
    "no configuration": ("plain", gone(CONFIG), f"has no {CONFIG}"),
    "a configuration cut off": ("plain", written(CONFIG, "{"), f"{CONFIG} is cut off or damaged"),
    "a configuration nested without end": ("plain", written(CONFIG, DEEP), f"{CONFIG} is cut off or damaged"),
    "a configuration that is not PEFT's": ("plain", written(CONFIG, "{}"), "peft_type is None; only LORA can be served or merged"),
    "another method": ("plain", config(peft_type="VERA"), "peft_type is 'VERA'; only LORA can be served or merged"),
    "another kind of LoRA": ("plain", config(alora_invocation_tokens=[5]), "can be neither served nor merged"),
    "another rank": ("plain", config(r=16), f"has rank 8 in the file and 16 in {CONFIG}"),
    "no rank": ("plain", config(r=None), "r is None; a whole number above 0 is needed"),
    "a rank of one layer that is no number": ("plain", config(rank_pattern={"v_proj": "8"}), "rank_pattern is {'v_proj': '8'}"),
    "an alpha that is no number": ("plain", config(lora_alpha=NAN), "lora_alpha is nan; a number is needed"),
    "no weights": ("plain", gone(WEIGHTS), f"has no {WEIGHTS}"),
    "weights that are a link to themselves": ("plain", loop, f"has no {WEIGHTS}"),
    "weights that are pickled": ("plain", lambda f: (f / WEIGHTS).rename(f / "adapter_model.bin"), "has no adapter_model*.safetensors"),
    "weights that git did not fetch": ("plain", written(WEIGHTS, "version https://git-lfs"), "Git LFS pointer"),
    "an empty file": ("plain", cut(0), "it ends before its header"),
    "a file cut in its header": ("plain", cut(100), "its header is longer than the file"),
    "a file cut in a tensor": ("plain", cut(9000), "its length is not what its header says"),
    "a damaged header": ("plain", garbled, f"{WEIGHTS} is cut off or damaged"),
    "a header nested without end": ("plain", header(DEEP), f"{WEIGHTS} is cut off or damaged"),
    "a type that nobody knows": ("plain", header({"a": {"dtype": "Q7", "shape": [0], "data_offsets": [0, 0]}}), f"{WEIGHTS} cannot be read"),
    "no tensor": ("plain", weights(dict.clear), "every weight that training changes is zero"),
    "an untrained adapter": ("plain", every("lora_B", torch.zeros_like), "every weight that training changes is zero"),
    "NaN": ("plain", one("lora_B", lambda t: t.fill_(NAN)), "has NaN or infinity"),
    "infinity in half precision": ("plain", every("lora_A", lambda t: t.bfloat16().fill_(INFINITY)), "more have NaN or infinity"),
    "half of a pair": ("plain", lost("lora_B"), "one of the two LoRA matrices only"),
    "a layer of another width": ("plain", every("lora_A", lambda t: t[:, :64]), "it is of another model"),
    "the layers of another model": ("plain", renamed(".layers.", ".decoder."), "the adapter is of another model"),
    "foreign keys": ("plain", weights(lambda t: t.update({"optimizer.step": torch.ones(2)})), "optimizer.step has no tensor in the base"),
    "new tokens without a tokenizer": ("added-tokens", gone("tokenizer*"), "3 tokens more than the base and no tokenizer"),
    "new tokens without their rows": ("added-tokens", weights(lambda t: [t.pop(k) for k in list(t) if "lora" not in k]), "it holds no rows for them"),
    "fewer rows than tokens": ("added-tokens", every("weight", lambda t: t[:513] if len(t) == 515 else t), "it holds 513 rows for the 515 tokens of its tokenizer"),
    "two vocabularies": ("added-tokens", one("lm_head", lambda t: t[:512]), "embed_tokens 515 and lm_head 512"),
    "rows of one layer only": ("added-tokens", lost("lm_head"), "embed_tokens 515 and lm_head 512"),
    "single tokens without their numbers": ("single", config(trainable_token_indices=[7]), "3 trained tokens and 1 indices"),
    "a single token past the end": ("single", config(trainable_token_indices=[7, 8, 999]), "a trained token of number 999"),
}  # fmt: skip
MODULES = ("export", "merge")


def start(module: str, folder: Path, adapter: Path, base: Path) -> Result:
    """Has one of the two do its work in `folder`."""
    targets = {"export": "serving", "merge": "target"}
    told = {"adapter": adapter, "base": base, "base_folder": base, targets[module]: folder / "made"}
    path = folder / f"{module}.json"
    path.write_text(json.dumps({name: str(value) for name, value in told.items()}))
    command = [sys.executable, "-m", launch.ENGINE[module], str(path)]
    return execute(command, folder, clean_environ())


def refusals(folder: Path, adapter: Path, base: Path) -> list[str]:
    """The one line of each module, without its own first words."""
    lines = []
    for module in MODULES:
        before = time.monotonic()
        done = start(module, folder, adapter, base)
        assert time.monotonic() - before < 60
        (line,) = done.err.splitlines()
        assert (done.code, done.out) == (Exit.ARTIFACT, "")
        lines.append(line.removeprefix("merge: refused: "))
    left = {path.name for path in folder.iterdir()} - {"adapter", "base"}
    assert left == {"export.json", "merge.json"}
    return lines


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_adapter_is_told_on_one_line(name: str, trained: Any, tmp_path: Path) -> None:  # noqa: F811
    kind, damage, said = BROKEN[name]
    source, _ = trained(kind_of(kind))
    adapter = tmp_path / "adapter"
    shutil.copytree(source, adapter)
    damage(adapter)
    base = Path(read(source / CONFIG)["base_model_name_or_path"])
    line, again = refusals(tmp_path, adapter, base)
    assert line == again
    assert line.startswith("adapter: ") and said in line


def test_a_base_of_another_size_is_told_on_one_line(
    bases: Path,  # noqa: F811
    trained: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    base = tmp_path / "base"
    shutil.copytree(bases / "untied", base)
    every("", lambda t: t[..., :64])(base)
    line, again = refusals(tmp_path, trained(kind_of("plain"))[0], base)
    assert line == again
    assert line.startswith("adapter: ") and line.endswith("it is of another model")


def test_another_base_of_the_same_shapes_is_only_doubted(
    bases: Path,  # noqa: F811
    trained: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    """Its weights may be the same, moved or renamed; nothing in an adapter could tell."""
    adapter, _ = trained(kind_of("plain"))
    for folder, doubted in (("untied", False), ("other", True)):
        base = tmp_path / folder
        shutil.copytree(bases / "untied", base)
        every("", torch.negative)(base)
        assert start("export", tmp_path, adapter, base).code == 0
        warning = read(tmp_path / "made" / RECORD)["warning"]
        assert bool(warning) == doubted
    assert f"{base} has the same shapes" in warning

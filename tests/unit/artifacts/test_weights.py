"""Which weights can be read and mean something."""

import json
import os
import struct
from pathlib import Path

import pytest

from envtune.artifacts import weights
from tests.unit.builders import floats, write_weights


def adapter(folder: Path, **tensors: tuple[str, list[int], bytes]) -> Path:
    """An adapter of the given tensors; lora_A and lora_B hold something else."""
    given = {"x.lora_A": floats(1, 2), "x.lora_B": floats(0, 3), **tensors}
    write_weights(folder / "adapter_model.safetensors", given)
    (folder / "adapter_config.json").write_text("{}")
    return folder


def bf16(*bits: int) -> tuple[str, list[int], bytes]:
    return "BF16", [len(bits)], struct.pack(f"<{len(bits)}H", *bits)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({}, None),
        ({"y.lora_B": bf16(0x3F80, 0)}, None),
        ({"y.lora_B": ("F16", [1], b"\x00\x3c")}, None),
        ({"mask": ("BOOL", [2], b"\x00\x01")}, None),
        ({"empty": ("F32", [0], b"")}, None),
        ({"y.lora_B": floats(1, NAN)}, "y.lora_B has NaN"),
        ({"y.lora_A": floats(NAN)}, "y.lora_A has NaN"),
        ({"y.lora_B": floats(INF)}, "y.lora_B has NaN or infinity"),
        ({"y.lora_B": floats(-INF, 0)}, "y.lora_B has NaN or infinity"),
        ({"y.lora_B": bf16(0x7FC0)}, "y.lora_B has NaN"),
        ({"y.lora_B": bf16(0xFF80)}, "y.lora_B has NaN or infinity"),
        ({"y.lora_B": ("F16", [1], b"\x00\x7e")}, "y.lora_B has NaN"),
        ({"x.lora_B": floats(0, 0)}, "zero"),
        ({"x.lora_B": bf16(0, 0)}, "zero"),
        ({"x.lora_B": bf16(0x8000)}, "zero"),
        ({"y.lora_B": ("Q7", [1], b"\x00")}, "cannot be read"),
        pytest.param(
            {"y.lora_B": ("F32", [4], struct.pack("<2f", 1, 1))}, "cannot be read",
        ),
    ],
)  # fmt: skip
def test_the_weights_of_an_adapter_are_looked_at(
    tmp_path: Path, tensors: dict[str, tuple[str, list[int], bytes]], told: str | None
) -> None:
    found = weights.problems(adapter(tmp_path, **tensors), adapter=True)
    assert len(found) == (told is not None)
    assert (told or "") in "".join(found)


@pytest.mark.parametrize("size", [0, 4, 8, 9, 50, -1])
def test_a_truncated_file_of_weights_is_told(tmp_path: Path, size: int) -> None:
    path = adapter(tmp_path) / "adapter_model.safetensors"
    os.truncate(path, size if size >= 0 else path.stat().st_size - 1)
    [problem] = weights.problems(tmp_path, adapter=True)
    assert "adapter_model.safetensors cannot be read" in problem


@pytest.mark.parametrize(
    "header",
    [b'{"a": {}}', b"\xff",
     *(pytest.param(header)
       for header in (b"[]", b"null", b'{"a": 1}', b'{"a": {"data_offsets": []}}'))],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_told_and_no_crash(tmp_path: Path, header: bytes) -> None:
    path = adapter(tmp_path) / "adapter_model.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    [problem] = weights.problems(tmp_path, adapter=True)
    assert "cannot be read" in problem


@pytest.mark.parametrize("config", [None, "", "{", "[]"])
def test_an_adapter_without_a_configuration_is_told(tmp_path: Path, config: str | None) -> None:
    path = adapter(tmp_path) / "adapter_config.json"
    path.unlink() if config is None else path.write_text(config)
    [problem] = weights.problems(tmp_path, adapter=True)
    assert "adapter_config.json is missing or no JSON" in problem


def test_a_folder_without_weights_is_told(tmp_path: Path) -> None:
    assert "has no adapter_model*.safetensors" in weights.problems(tmp_path, adapter=True)[0]
    assert "has no model*.safetensors" in weights.problems(adapter(tmp_path), adapter=False)[0]


def test_a_model_of_several_files_is_whole_only_with_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    files = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    for name in files:
        write_weights(tmp_path / name, {name: floats(1)})
    index = {"weight_map": {name: name for name in files}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert weights.problems(tmp_path, adapter=False) == []
    (tmp_path / files[1]).unlink()
    assert weights.problems(tmp_path, adapter=False)

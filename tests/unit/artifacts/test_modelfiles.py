"""What is missing or damaged in the folder of a model, a tokenizer or an adapter."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from envtune.artifacts import modelfiles
from envtune.artifacts.modelfiles import ADAPTER, CONFIG, TOKENIZER, WEIGHTS
from tests.unit.builders import write_model

WHOLE = (CONFIG, WEIGHTS, TOKENIZER)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def _index(*shards: str) -> str:
    return json.dumps({"weight_map": {f"w{n}": shard for n, shard in enumerate(shards)}})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_model(tmp_path / "m")
    return tmp_path / "m"


def test_a_whole_folder_has_no_problem(folder: Path) -> None:
    assert modelfiles.problems(folder, WHOLE) == []


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    (problem,) = modelfiles.problems(tmp_path, WHOLE)
    for name in ("config.json", "weights (*.safetensors", "tokenizer (tokenizer.json"):
        assert f"no {name}" in problem
    assert modelfiles.problems(tmp_path / "none", WHOLE) == [f"{tmp_path}/none is not there"]


@pytest.mark.parametrize(
    ("names", "parts", "missing"),
    [
        (["tokenizer.json"], [TOKENIZER], []),
        (["tokenizer.model"], [TOKENIZER], []),
        (["vocab.json", "merges.txt"], [TOKENIZER], []),
        (["vocab.json"], [TOKENIZER], ["merges.txt beside vocab.json"]),
        (["pytorch_model-00001-of-00002.bin"], [WEIGHTS], []),
        (["training_args.bin", "optimizer.bin"], [WEIGHTS], ["weights"]),
        (["adapter_model.safetensors"], [WEIGHTS], ["weights"]),
        (["adapter_model.safetensors"], [ADAPTER], ["adapter_config.json"]),
        (["adapter_config.json"], [ADAPTER], ["adapter_model.safetensors"]),
        ([], [], []),
    ],
)
def test_the_names_tell_what_is_missing(
    names: list[str], parts: list[str], missing: list[str]
) -> None:
    found = modelfiles.missing(names, parts)
    assert [name.split(" (")[0] for name in found] == missing


def test_every_shard_that_the_index_names_has_to_be_there(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00002-of-00003.safetensors")
    shards = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    (folder / "model.safetensors.index.json").write_text(_index(*shards))
    expected = f"{folder} has no {shards[0]}, no {shards[2]}"
    assert modelfiles.problems(folder, WHOLE) == [expected]


def test_an_index_that_nothing_loads_by_is_let_be(folder: Path) -> None:
    """Of a repository with both kinds of weights people fetch one, and the other's index."""
    (folder / "pytorch_model.bin.index.json").write_text(_index("pytorch_model-00001.bin"))
    assert modelfiles.problems(folder, WHOLE) == []


def _cut(keep: int) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes()[:keep])


def _write(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(text)


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("config.json", _write("{"), "is cut off or damaged: Expecting"),
        ("config.json", _write("[]"), "is cut off or damaged: it is no JSON object"),
        ("tokenizer.json", _write('{"model": '), "is cut off or damaged: Expecting"),
        ("model.safetensors.index.json", _write("nothing"), "is cut off or damaged: Expecting"),
        ("model.safetensors", _write(POINTER), "is a Git LFS pointer and not the file"),
        ("tokenizer.json", _write(POINTER), "is a Git LFS pointer and not the file"),
        ("pytorch_model.bin", _write(POINTER), "is a Git LFS pointer and not the file"),
        ("model.safetensors", _cut(4), "is cut off or damaged: it ends before its header"),
        ("model.safetensors", _cut(30), "is cut off or damaged: its header is longer"),
        ("model.safetensors", _cut(-1), "is cut off or damaged: its length is not what"),
    ],
)
def test_a_damaged_file_is_one_line(
    name: str, damage: Callable[[Path], object], told: str, folder: Path
) -> None:
    damage(folder / name)
    (problem,) = modelfiles.problems(folder, WHOLE)
    assert problem.startswith(f"{folder / name} {told}")


def test_damage_beside_something_missing_is_told_too(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "config.json").write_text("{")
    assert len(modelfiles.problems(folder, WHOLE)) == 2


def test_other_json_in_the_folder_is_nobodys_business(folder: Path) -> None:
    (folder / "modules.json").write_text("[1]")
    assert modelfiles.problems(folder, WHOLE) == []

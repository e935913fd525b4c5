"""What a manifest tells of a checkpoint, and what of it is damage."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from envtune.artifacts import checkpoints, manifests

RUN = "a" * 64


@pytest.fixture
def made(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint-8"
    (path / "sub").mkdir(parents=True)
    (path / "adapter_model.safetensors").write_bytes(bytes(range(200)))
    (path / "sub" / "state.pt").write_text("state")
    (path / "trainer_state.json").write_text('{"global_step": 8}')
    checkpoints.commit(path, 8, RUN)
    return path


def test_what_is_as_it_was_has_no_problem(made: Path) -> None:
    assert manifests.problem(made, 8, RUN) is None
    assert manifests.problem(made, 8, "") is None
    assert manifests.has_digests(made)


def _one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _link(path: Path) -> None:
    other = path.with_name("elsewhere")
    path.rename(other)
    path.symlink_to(other.name)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda p: _one_bit(p / "sub" / "state.pt"), "sub/state.pt has other bytes"),
        (lambda p: os.truncate(p / "sub" / "state.pt", 1), "sub/state.pt has another size"),
        (lambda p: (p / "sub" / "state.pt").unlink(), "sub/state.pt is missing"),
        (lambda p: _link(p / "sub" / "state.pt"), "sub/state.pt is no file any more"),
        (lambda p: (p / "model.safetensors").touch(), "model.safetensors was not there"),
        (lambda p: (p / "optimizer.bin").touch(), "optimizer.bin was not there"),
        (lambda p: (p / "pytorch_model_fsdp_0").mkdir(), "pytorch_model_fsdp_0 was not there"),
        (lambda p: (p / "envtune.json").write_text(""), "envtune.json is no manifest"),
        (lambda p: (p / "envtune.json").write_text('{"files": {}}'), "envtune.json names no files"),
        (lambda p: (p / "envtune.json").unlink(), "envtune.json: No such file"),
        (lambda p: checkpoints.commit(p, 9, RUN), "envtune.json is of step 9"),
        (lambda p: checkpoints.commit(p, 8, "b" * 64), "envtune.json is of another run"),
    ],
)
def test_damage_is_told_with_its_file(
    made: Path, damage: Callable[[Path], object], told: str
) -> None:
    damage(made)
    assert told in str(manifests.problem(made, 8, RUN))


def test_weights_of_other_names_shapes_or_dtypes_are_told_as_that(made: Path) -> None:
    path = made / "adapter_model.safetensors"
    save_file({"a": np.zeros((2, 3), np.float32)}, path)
    checkpoints.commit(made, 8, RUN)
    told = manifests.read(made)["files"][path.name]
    assert told["tensors"] == {"a": ["F32", 2, 3]}
    assert manifests.problem(made, 8, RUN) is None
    for tensors, reason in (
        ({"b": np.zeros((2, 3), np.float32)}, "has other tensors"),
        ({"a": np.zeros((3, 2), np.float32)}, "has a as ['F32', 3, 2], and not as ['F32', 2, 3]"),
        ({"a": np.zeros((2, 3), np.int32)}, "has a as ['I32', 2, 3], and not as ['F32', 2, 3]"),
        ({"a": np.ones((2, 3), np.float32)}, "has other bytes"),
    ):
        save_file(tensors, path)
        assert reason in str(manifests.problem(made, 8, RUN))


@pytest.mark.parametrize("text", ['{"global_step": 4}', "{", "[]"])
def test_the_trainers_account_is_looked_into_also_where_its_digest_is_right(
    made: Path, text: str
) -> None:
    (made / "trainer_state.json").write_text(text)
    checkpoints.commit(made, 8, RUN)
    assert manifests.problem(made, 8, RUN) == "trainer_state.json is not of step 8"


def test_what_a_person_puts_there_is_no_damage(made: Path) -> None:
    for name in ("notes.txt", "models.txt", "results.json"):
        (made / name).touch()
    (made / "plots").mkdir()
    assert manifests.problem(made, 8, RUN) is None


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_what_cannot_be_read_is_not_damage(
    made: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*arguments: object, **more: object) -> None:
        raise OSError(number, os.strerror(number), str(made / "sub" / "state.pt"))

    monkeypatch.setattr(manifests, "_digest", fails)
    with pytest.raises(OSError, match=os.strerror(number)):
        manifests.problem(made, 8, RUN)


def test_a_checkpoint_of_an_earlier_version_is_known_by_its_sizes(made: Path) -> None:
    sizes = {name: told["bytes"] for name, told in manifests.read(made)["files"].items()}
    (made / manifests.MANIFEST).write_text(json.dumps({"step": 8, "files": sizes}))
    assert manifests.problem(made, 8, RUN) is None
    assert not manifests.has_digests(made)
    assert checkpoints.committed(made)
    os.truncate(made / "sub" / "state.pt", 1)
    assert manifests.problem(made, 8, RUN)

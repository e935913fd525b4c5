"""Room for checkpoints on the disk, and for batches in /dev/shm, before anything starts."""

from dataclasses import replace

import pytest

from envtune import files
from envtune.checks import disk
from envtune.checks.machine import device
from envtune.errors import Exit
from envtune.machine.hardware import Machine
from envtune.resolve.config import Facts
from envtune.resolve.facts import ModelFacts
from tests.unit.builders import MODEL_AND_DATA, load, make_facts

LLAMA_8B = {"hidden_size": 4096, "num_hidden_layers": 32, "vocab_size": 128256}
ADAPTER = 16 * 32 * 20 * 4096 * 12  # 41,943,040 parameters and two states of each


def facts(config: dict[str, object]) -> Facts:
    return replace(
        make_facts(), model=ModelFacts("org/model", local=False, config=config), outputs="/"
    )


@pytest.mark.parametrize(
    ("free", "refused", "warned"),
    [(ADAPTER - 1, True, False), (ADAPTER, False, True), (4 * ADAPTER - 1, False, True),
     (4 * ADAPTER, False, False), (None, False, False)],
)  # fmt: skip
def test_checkpoints_that_do_not_fit_are_told_with_path_and_bytes(
    monkeypatch: pytest.MonkeyPatch, free: int | None, *, refused: bool, warned: bool
) -> None:
    monkeypatch.setattr(files, "free", lambda path: free)
    settings = load(MODEL_AND_DATA)
    problems = list(disk.problems(settings, facts(LLAMA_8B)))
    warnings = list(disk.warnings(settings, facts(LLAMA_8B)))
    assert bool(problems) == refused
    assert bool(warnings) == warned
    assert all(problem.exit == Exit.DISK for problem in problems)
    for line in (*map(str, problems), *warnings):
        assert line.startswith("SFT_OUTPUTS_DIR: ")
        assert f"{ADAPTER:,} bytes" in line
        assert f"{free:,} are free in /" in line


@pytest.mark.parametrize(
    ("more", "config"),
    [
        ({}, {}),
        ({"AXOLOTL_SAVE_STRATEGY": "no"}, LLAMA_8B),
        ({"SFT_PRETEND_GPU": "h100"}, LLAMA_8B),
    ],
)
def test_nothing_is_said_where_no_size_is_known_or_nothing_is_saved(
    monkeypatch: pytest.MonkeyPatch, more: dict[str, str], config: dict[str, object]
) -> None:
    monkeypatch.setattr(files, "free", lambda path: 0)
    assert list(disk.problems(load({**MODEL_AND_DATA, **more}), facts(config))) == []


@pytest.mark.parametrize(
    ("workers", "shm", "told"),
    [("0", 1, False), ("4", 2**26, False), ("4", 2**20, True), ("128", 2**26, True)],
)
def test_batches_that_do_not_fit_into_shared_memory_are_told(
    workers: str, shm: int, *, told: bool
) -> None:
    settings = load({**MODEL_AND_DATA, "AXOLOTL_DATALOADER_NUM_WORKERS": workers})
    machine = Machine((), 4, 2**34, shm=shm)
    said = [str(p) for p in device(settings, make_facts(machine)) if "--shm-size" in str(p)]
    assert bool(said) == told
    assert all(line.startswith("AXOLOTL_DATALOADER_NUM_WORKERS: ") for line in said)

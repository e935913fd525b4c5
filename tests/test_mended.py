"""Whatever a disk does to the files beside the checkpoints, a start mends it or says what it is
in one line: it never begins anew in silence, and never accuses the data.

Each harm of each file is mended without a training; `make drill-damages` starts after each of
STARTED, and without DRILL after two of them.
"""

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from envtune import channel
from envtune.artifacts import checkpoints
from envtune.runs import folders, record
from envtune.runs.lease import Lease
from envtune.stages import mending
from tests.harness import (
    AUTORUN,
    DEFAULTS,
    Entrypoint,
    clean_environ,
    contents,
    execute,
    losses,
    read,
)
from tests.test_damaged import ADAPTER, AS_A_USER, DRILL, interrupted, no_user

Harm = Callable[[Path, random.Random], object]


def _instead(make: Callable[[Path], object]) -> Harm:
    def harm(path: Path, dice: random.Random) -> None:
        path.unlink()
        make(path)

    return harm


def _zeroed(path: Path, dice: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _cut(path: Path, dice: random.Random) -> None:
    os.truncate(path, dice.randrange(1, path.stat().st_size - 1))


def _flipped(path: Path, dice: random.Random) -> None:
    """Sixty-four bytes that are no UTF-8 any more."""
    content = bytearray(path.read_bytes())
    for at in dice.sample(range(len(content)), min(64, len(content))):
        content[at] |= 0x80
    path.write_bytes(content)


HARMS: dict[str, Harm] = {
    "cut off": _cut,
    "emptied": lambda path, dice: path.write_bytes(b""),
    "zeroed": _zeroed,
    "binary": lambda path, dice: path.write_bytes(dice.randbytes(999)),
    "flipped": _flipped,
    "a list": lambda path, dice: path.write_text("[1, 2]"),
    "wrong types": lambda path, dice: path.write_text('{"name": 3, "step": "x", "folder": []}'),
    "nested": lambda path, dice: path.write_text("[" * 100_000),
    "gone": lambda path, dice: path.unlink(),
    "a folder": _instead(Path.mkdir),
    "a link to nothing": _instead(lambda path: path.symlink_to("nowhere")),
    "a link to no end": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a pipe": _instead(os.mkfifo),
}
COPY = "config/run.json"
RUN_FILES = (
    "run.json", COPY, "config/resolved.json", "config/axolotl.yaml",
    "config/accelerate.yaml", "outcome.json", "metrics.jsonl", "lease", "data/prepared.json",
    "data/sample.json", "report.json", "../latest.txt",
)  # fmt: skip
Done = tuple[tuple[str, str], ...]
ONE = {f"{name}: {what}": ((name, what),) for name in RUN_FILES for what in HARMS}
SEVERAL: dict[str, Done] = {
    "run.json and its copy: zeroed": (("run.json", "zeroed"), (COPY, "zeroed")),
    "run.json and its copy: gone": (("run.json", "gone"), (COPY, "gone")),
    "run.json and resolved.json: cut": (("run.json", "cut off"), ("config/resolved.json", "cut off")),
    "all: emptied": tuple((name, "emptied") for name in RUN_FILES),
    "all: a link to nothing": tuple((name, "a link to nothing") for name in RUN_FILES),
}  # fmt: skip
# What a whole start is made after: each file and each harm at least once.
STARTED: dict[str, Done] = SEVERAL | {
    f"{name}: {what}": ((name, what),)
    for name, what in [
        *zip((*RUN_FILES, *RUN_FILES), (*HARMS, *HARMS), strict=False), ("metrics.jsonl", "binary"),
        ("metrics.jsonl", "zeroed"), ("run.json", "wrong types"),
    ]
}  # fmt: skip


def damaged(run: Path, done: Done, dice: random.Random) -> None:
    for file, what in done:
        path = run / file
        if not path.exists() or not path.stat().st_size:  # a lease that was given back, say
            path.write_text('{"stamp": "1:1", "host": "here"}\n')
        HARMS[what](path, dice)


def unfinished(entrypoint: Entrypoint, whole: Path) -> tuple[Path, Path]:
    """A run as a kill leaves it, and its newest checkpoint."""
    run, new, _ = interrupted(entrypoint, whole)
    (run.parent / "latest.txt").write_text(f"{run.name}\n")
    shutil.copy(run / "run.json", run / "config" / "run.json")
    return run, new


@pytest.mark.parametrize("name", RUN_FILES)
def test_every_damage_of_a_file_is_mended_by_the_others(
    name: str, entrypoint: Entrypoint, lora: Path, seed: int
) -> None:
    """Without a training: the run is found, and says all that it said before."""
    harms = [done for title, done in ONE.items() if title.startswith(f"{name}:")]
    several = [done for done in SEVERAL.values() if dict(done).keys() == {"run.json", COPY}]
    several = several if name == COPY else []
    for number, done in enumerate([*harms, *several]):
        run, _ = unfinished(entrypoint, lora)
        before, config = read(run / "run.json"), record.load_resolved(folders.open_run(run))
        damaged(run, done, random.Random(f"{seed}:{number}"))
        found = folders.claim(config, before["key"], run.parent, Path(before["logs"]).parent)
        with Lease(found.folder):
            mending.mend(found)
        assert (found.folder, found.key) == (run, before["key"]), done
        told = record.read_resolved(run)
        assert record.load_resolved(found).key(told["contents"]) == before["key"], done
        for path in (run / "run.json", run / "config" / "run.json"):
            lost = len(done) > 1 and {"run.json", COPY} <= dict(done).keys()
            assert read(path) == before or (lost and read(path)["key"] == before["key"]), done
        step = checkpoints.step_of(checkpoints.named(run / "checkpoints")[-1])
        wanted = [line for line in losses(lora) if line[0] <= step]
        assert losses(run)[: len(wanted)] == wanted, done
        for page in ("axolotl.yaml", "accelerate.yaml"):
            assert isinstance(yaml.safe_load((run / "config" / page).read_text()), dict), done
        outcome = channel.read_outcome(run)
        assert outcome is None or outcome.state == "training", done
        assert (run.parent / "latest.txt").read_text() == f"{run.name}\n", done
        shutil.rmtree(run.parent)


@pytest.mark.parametrize("number", range(len(STARTED) if DRILL else 2))
def test_a_damaged_file_of_a_run_is_mended_and_the_run_goes_on(
    number: int, entrypoint: Entrypoint, lora: Path, forking: dict[str, str], seed: int
) -> None:
    dice = random.Random(f"{seed}:{number}")
    names = list(STARTED) if DRILL else random.Random(seed).sample(list(STARTED), 2)
    run, new = unfinished(entrypoint, lora)
    damaged(run, STARTED[names[number]], dice)
    result = entrypoint.run(**forking)
    told = [line for line in result.said if re.search("kept as|again|taken from", line)]
    print(f"seed {seed}: {names[number]}: {told}")
    assert result.code == 0, result.err[-3000:]
    assert f"resuming from {new.name}" in result.err
    assert [path.name for path in run.parent.iterdir() if path.is_dir()] == [run.name]
    assert losses(run) == losses(lora)
    assert (run / "adapter" / ADAPTER).read_bytes() == (lora / "adapter" / ADAPTER).read_bytes()
    assert (run.parent / "latest.txt").read_text() == f"{run.name}\n"
    assert read(run / "run.json") == read(run / "config" / "run.json")
    assert read(run / "run.json")["stages"]["train"]["outcome"] == "done"
    assert "check the rows" not in result.err


@no_user
@pytest.mark.parametrize("name", ["run.json", "config/resolved.json", "metrics.jsonl"])
def test_what_cannot_be_read_at_the_moment_is_no_damage(
    name: str, entrypoint: Entrypoint, lora: Path
) -> None:
    run, _ = unfinished(entrypoint, lora)
    before = contents(run)
    (run / name).chmod(0)
    environ = clean_environ(**DEFAULTS, **entrypoint.settings)
    result = execute([*AS_A_USER, str(AUTORUN)], entrypoint.folder, environ)
    (run / name).chmod(0o644)
    assert result.code == 200, result.err[-3000:]
    assert f"{run / name}: Permission denied; nothing is changed" in result.lines[-1]
    after = contents(run)
    assert all(after[file] == before[file] for file in before if not file.startswith("lease"))
    assert [path.name for path in run.parent.iterdir() if path.is_dir()] == [run.name]


def test_a_finished_run_whose_report_is_damaged_makes_it_again(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    run = entrypoint.folder / "outputs" / lora.name
    shutil.copytree(lora, run)
    (run / "report.json").write_bytes(bytes(99))
    result = entrypoint.run(**forking)
    assert result.code == 0, result.err[-3000:]
    assert "train: done before" in result.err
    assert read(run / "report.json")["steps"] == 38
    assert (run / ".complete").exists()

"""Which checkpoints count, and no half folder ever."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from envtune.artifacts import checkpoints, manifests

NAMES = [f"file{i}.bin" for i in range(20)]


def checkpoint(folder: Path, step: int, *, commit: bool = True) -> Path:
    path = folder / f"checkpoint-{step}"
    (path / "sub").mkdir(parents=True)
    (path / "weights").write_text("weights" * step)
    (path / "sub" / "state").write_text("state")
    if commit:
        checkpoints.commit(path, step)
    return path


def test_a_checkpoint_counts_once_it_is_committed(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 4, commit=False)
    assert not checkpoints.committed(path)
    checkpoints.commit(path, 4)
    assert checkpoints.committed(path)
    manifest = json.loads((path / checkpoints.MANIFEST).read_text())
    told = {name: entry["bytes"] for name, entry in manifest["files"].items()}
    assert (manifest["step"], told) == (4, {"sub/state": 5, "weights": 28})


def test_the_newest_committed_checkpoint_is_the_one_with_the_highest_step(tmp_path: Path) -> None:
    for step in (9, 10, 100, 55):
        checkpoint(tmp_path, step)
    checkpoint(tmp_path, 200, commit=False)
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-100"


def test_there_is_no_newest_checkpoint_where_there_is_none(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path / "none") is None
    checkpoint(tmp_path, 1, commit=False)
    assert checkpoints.newest(tmp_path) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: os.truncate(p / "weights", 3),
        lambda p: (p / "weights").write_text("x" * 100),
        lambda p: (p / "weights").unlink(),
        lambda p: (p / "sub" / "state").unlink(),
        lambda p: os.truncate(p / checkpoints.MANIFEST, 10),
        lambda p: os.truncate(p / checkpoints.MANIFEST, 0),
        lambda p: (p / checkpoints.MANIFEST).write_text("{}"),
        *(
            pytest.param(
                lambda p, text=text: (p / checkpoints.MANIFEST).write_text(text),
            )
            for text in ("[]", '{"files": []}')
        ),
        lambda p: (p / checkpoints.MANIFEST).write_bytes(b"\xff\xfe"),
    ],
    ids=["truncated", "longer", "missing", "missing below", "half manifest",
         "empty manifest", "no files", "a list", "files a list", "no text"],
)  # fmt: skip
def test_a_damaged_checkpoint_does_not_count_and_the_one_before_does(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    before, damaged = checkpoint(tmp_path, 4), checkpoint(tmp_path, 8)
    damage(damaged)
    assert not checkpoints.committed(damaged)
    assert checkpoints.newest(tmp_path) == before
    assert manifests.problem(damaged, 8, "")
    assert checkpoints.drop_uncommitted(tmp_path) == []
    assert checkpoints.put_aside(damaged) == tmp_path / "damaged" / "checkpoint-8"
    assert manifests.problem(before, 4, "") is None


def test_a_file_that_came_later_does_no_harm(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 4)
    (path / "notes.txt").write_text("mine")
    assert checkpoints.committed(path)
    assert checkpoints.drop_uncommitted(tmp_path) == []


@pytest.mark.parametrize("file", ["weights", "trainer_state.json", "optimizer.pt"])
def test_a_half_that_was_begun_here_is_dropped_and_what_is_anothers_is_kept(
    tmp_path: Path, file: str
) -> None:
    """Whether or not a Trainer came to its end."""
    folder = tmp_path / "checkpoints"
    other, half = folder / "checkpoint-4", folder / "checkpoint-8"
    other.mkdir(parents=True)
    (other / file).write_text('{"global_step": 4}')
    checkpoints.begin(half, 8)
    (half / file).write_text("half")
    assert checkpoints.drop_uncommitted(folder) == [half]
    assert not list(folder.iterdir())
    assert (tmp_path / "checkpoint-4.kept-1" / file).read_text() == '{"global_step": 4}'


def test_dropping_touches_nothing_but_checkpoints(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("")
    (tmp_path / "other").mkdir()
    assert checkpoints.drop_uncommitted(tmp_path) == []
    assert checkpoints.drop_uncommitted(tmp_path / "none") == []
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("stray", ["checkpoint-notes.txt", "checkpoint-link"])
def test_what_is_only_called_like_a_checkpoint_is_no_crash(tmp_path: Path, stray: str) -> None:
    path = checkpoint(tmp_path, 4)
    if stray.endswith("link"):
        (tmp_path / stray).symlink_to(tmp_path)
    else:
        (tmp_path / stray).write_text("mine")
    checkpoints.drop_uncommitted(tmp_path)
    assert checkpoints.newest(tmp_path) == path


def test_the_files_of_an_artifact_are_its_weights_configuration_and_tokenizer(
    tmp_path: Path,
) -> None:
    wanted = ["adapter_config.json", "adapter_model.safetensors", "chat_template.jinja",
              "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json"]  # fmt: skip
    for name in [*wanted, "optimizer.pt", "rng_state.pth", "training_args.bin", "README.md"]:
        (tmp_path / name).write_text(name)
    assert sorted(checkpoints.artifact_files(tmp_path, adapter=True)) == wanted


def test_a_folder_called_like_a_tokenizer_is_no_file_of_an_artifact(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_parts").mkdir()
    assert checkpoints.artifact_files(tmp_path, adapter=True) == []


def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_text(name * 1000)
    return folder


def whole(target: Path) -> bool:
    return all((target / name).read_text() == name * 1000 for name in NAMES)


def test_publishing_copies_the_named_files_and_leaves_nothing_aside(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    for names in (NAMES, NAMES[:2]):
        folder = source(tmp_path) if names is NAMES else tmp_path / "source"
        checkpoints.publish(folder, target, names)
        assert sorted(p.name for p in target.iterdir()) == sorted(names)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".adapter.files", "adapter", "source"]


def test_a_file_that_is_missing_leaves_the_published_folder_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "adapter"
    checkpoints.publish(source(tmp_path), target, NAMES)
    with pytest.raises(FileNotFoundError):
        checkpoints.publish(tmp_path / "source", target, [*NAMES, "none"])
    assert whole(target)


# Kills itself at the n-th thing that Python reports to an audit hook, from opening a file
# to removing a folder, and says when there was no n-th.
PUBLISH = """
import os, signal, sys
from pathlib import Path
from envtune.artifacts import checkpoints, manifests
source, target, at = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
names = sorted(os.listdir(source))
children = 0
while True:
    at += int(sys.argv[4])
    child = os.fork()
    if child == 0:
        count = 0
        def hook(event, arguments):
            global count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(hook)
        checkpoints.publish(source, target, names)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    there = sorted(os.listdir(target)) if target.exists() else None
    print(at, "none" if there is None else "whole" if there == names else "HALF", flush=True)
    if os.WIFEXITED(status):
        break
"""


def killed_everywhere(tmp_path: Path) -> list[str]:
    """What lies under the final name after a kill before each step."""
    command = [sys.executable, "-c", PUBLISH, str(tmp_path / "source"), str(tmp_path / "adapter"),
               "0", "1"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    states = [line.split()[1] for line in done.stdout.splitlines()]
    assert len(states) > len(NAMES)
    return states


def test_a_kill_before_any_step_leaves_no_half_folder(tmp_path: Path) -> None:
    source(tmp_path)
    states = killed_everywhere(tmp_path)
    assert "HALF" not in states
    assert states[0] == "none"
    assert states[-1] == "whole"
    assert whole(tmp_path / "adapter")


def test_a_kill_while_publishing_anew_leaves_no_half_folder_either(tmp_path: Path) -> None:
    checkpoints.publish(source(tmp_path), tmp_path / "adapter", NAMES)
    assert set(killed_everywhere(tmp_path)) <= {"whole", "none"}


def test_a_kill_at_a_random_time_leaves_no_half_folder(tmp_path: Path, dice: random.Random) -> None:
    folder, target = source(tmp_path), tmp_path / "adapter"
    script = (
        "import sys; from pathlib import Path; from envtune.artifacts import checkpoints\n"
        "print('go', flush=True)\n"
        "checkpoints.publish(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])"
    )
    for turn in range(10):
        command = [sys.executable, "-c", script, str(folder), str(target), *NAMES]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(dice.uniform(0, 0.02))
            child.send_signal(signal.SIGKILL)
        if target.exists():
            assert whole(target)
            target.rename(tmp_path / f"done{turn}")


@pytest.mark.parametrize(
    ("limit", "best", "left"),
    [
        (2, None, [30, 40]),
        (1, None, [40]),
        (1, 10, [10, 40]),
        (3, 10, [10, 30, 40]),
        (2, 40, [30, 40]),
        (9, None, [10, 20, 30, 40]),
        (None, None, [10, 20, 30, 40]),
    ],
)
def test_rotation_goes_by_steps_whatever_the_clock_says(
    tmp_path: Path, limit: int | None, best: int | None, left: list[int]
) -> None:
    for number, step in enumerate((40, 30, 20, 10)):
        path = checkpoint(tmp_path, step)
        os.utime(path, (number, number))
    named = tmp_path / f"checkpoint-{best}" if best else None
    checkpoints.rotate(tmp_path, limit, named)
    assert [checkpoints.step_of(path) for path in checkpoints.named(tmp_path)] == left


def test_what_a_killed_removal_leaves_is_removed_by_the_next_start(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 4)
    path.rename(tmp_path / ".checkpoint-4.removed")
    assert checkpoints.drop_uncommitted(tmp_path) == []
    assert not list(tmp_path.iterdir())


def test_what_is_put_aside_twice_is_kept_twice(tmp_path: Path) -> None:
    kept = [checkpoints.put_aside(checkpoint(tmp_path, 4)).name for _ in range(2)]
    assert kept == ["checkpoint-4", "checkpoint-4.2"]
    assert checkpoints.named(tmp_path) == []


@pytest.mark.parametrize("name", ["checkpoint-²", "checkpoint-007", "checkpoint-old-9"])
def test_a_name_that_axolotl_would_take_for_a_number_is_kept_beside(
    tmp_path: Path, name: str
) -> None:
    folder = tmp_path / "checkpoints"
    (folder / name).mkdir(parents=True)
    assert checkpoints.drop_uncommitted(folder) == []
    assert (tmp_path / f"{name}.kept-1").is_dir()

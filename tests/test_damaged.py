"""Whatever happens to the newest checkpoint, the same start goes on from a whole one, says what was
wrong, keeps what is damaged, and ends with the bytes of a run that nothing has happened to.

`make drill-damages` does each of DAMAGES, half of which keep the size of every file; without
DRILL it is a sample of three.
"""

import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from envtune.artifacts import checkpoints, manifests
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

DRILL = bool(os.environ.get("DRILL"))
MANIFEST = manifests.MANIFEST
ADAPTER, OPTIMIZER, SCHEDULER = "adapter_model.safetensors", "optimizer.pt", "scheduler.pt"
RNG, STATE, CONFIG = "rng_state.pth", "trainer_state.json", "adapter_config.json"

# What is done to the newest checkpoint; the one before is whole.
Damage = Callable[[Path, Path, random.Random], object]


def zeroed(name: str) -> Damage:
    return lambda new, old, dice: (new / name).write_bytes(bytes((new / name).stat().st_size))


def flipped(name: str, count: int = 64) -> Damage:
    """So many bytes of a file, wherever they are."""

    def damage(new: Path, old: Path, dice: random.Random) -> None:
        content = bytearray((new / name).read_bytes())
        for at in dice.sample(range(len(content)), count):
            content[at] ^= 1 << dice.randrange(8)
        (new / name).write_bytes(content)

    return damage


def swapped(name: str) -> Damage:
    """With the same file of the step before."""
    return lambda new, old, dice: shutil.copyfile(old / name, new / name)


def values(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Damage:
    """A file of weights that is a whole one."""

    def damage(new: Path, old: Path, dice: random.Random) -> None:
        save_file(change(load_file(new / ADAPTER)), new / ADAPTER, {"format": "pt"})

    return damage


def filled(value: float) -> Damage:
    return values(lambda all_: {n: torch.full_like(t, value) for n, t in all_.items()})


def replaced(name: str, old: str, new: str) -> Damage:
    """A text in a file by another of its length."""

    def damage(folder: Path, before: Path, dice: random.Random) -> None:
        text = (folder / name).read_text()
        changed = re.sub(old, new, text, count=1)
        assert len(changed) == len(text)
        assert changed != text
        (folder / name).write_text(changed)

    return damage


def written(name: str, content: str) -> Damage:
    return lambda new, old, dice: (new / name).write_text(content)


def cut(name: str) -> Damage:
    return lambda new, old, dice: os.truncate(
        new / name, dice.randrange((new / name).stat().st_size)
    )


def missing(name: str) -> Damage:
    return lambda new, old, dice: (new / name).unlink()


def instead(name: str, make: Callable[[Path], object]) -> Damage:
    """Something else under a file's name, or the checkpoint's own."""

    def damage(new: Path, old: Path, dice: random.Random) -> None:
        path = new / name if name else new
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        make(path)

    return damage


def committed(damage: Damage, run: str = "") -> Damage:
    """With a manifest that says it is so: the loader alone can tell, or the run's key."""

    def damaged(new: Path, old: Path, dice: random.Random) -> None:
        damage(new, old, dice)
        key = run or read(new / MANIFEST)["run"]
        checkpoints.commit(new, int(new.name[11:]), key)

    return damaged


def of_the_step_before(new: Path, old: Path, dice: random.Random) -> None:
    shutil.rmtree(new)
    shutil.copytree(old, new)


def linked(new: Path, old: Path, dice: random.Random) -> None:
    shutil.rmtree(new)
    new.symlink_to(old.name)


def narrow(all_: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor[:-1].clone() for name, tensor in all_.items()}


def shuffled(all_: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.flip(0).contiguous() for name, tensor in all_.items()}


def reseeded(new: Path, old: Path, dice: random.Random) -> None:
    states = torch.load(new / RNG, weights_only=False)
    states["cpu"] = torch.Generator().manual_seed(7).get_state()
    torch.save(states, new / RNG)


SAME_SIZE: dict[str, Damage] = {
    **{f"zeroed {name}": zeroed(name) for name in (ADAPTER, OPTIMIZER, SCHEDULER, RNG, STATE)},
    **{f"flipped {name}": flipped(name) for name in (ADAPTER, OPTIMIZER, SCHEDULER, RNG, STATE)},
    **{f"one bit of {name}": flipped(name, 1) for name in (ADAPTER, OPTIMIZER, RNG)},
    **{f"{name} of the step before": swapped(name) for name in (ADAPTER, OPTIMIZER, SCHEDULER)},
    "random states of another seed": reseeded,
    "values zeroed": filled(0.0),
    "values NaN": filled(float("nan")),
    "values infinite": filled(float("inf")),
    "values in another order": values(shuffled),
    "another rank in the configuration": replaced(CONFIG, r'"r": 1(\d)', r'"r": 3\1'),
    "another step in the state": replaced(STATE, r'"global_step": \d', '"global_step": 9'),
    "another digest": replaced(MANIFEST, r'"xxh3": "..', '"xxh3": "zz'),
    "another run's": committed(filled(0.5), run="0" * 64),
}
OTHER: dict[str, Damage] = {
    **{f"cut {name}": cut(name) for name in (ADAPTER, OPTIMIZER, STATE, MANIFEST)},
    **{f"no {name}": missing(name) for name in (ADAPTER, OPTIMIZER, SCHEDULER, RNG, STATE, MANIFEST)},
    **{f"empty {name}": written(name, "") for name in (MANIFEST, OPTIMIZER)},
    "a manifest of no files": written(MANIFEST, '{"step": 4, "files": {}}'),
    "a manifest without a bottom": written(MANIFEST, "[" * 100_000),
    "wrong shapes": values(narrow),
    "wrong shapes, committed": committed(values(narrow)),
    "wrong dtype": values(lambda all_: {name: t.half() for name, t in all_.items()}),
    "an optimizer that is none, committed": committed(written(OPTIMIZER, "nothing")),
    "random states that are none, committed": committed(zeroed(RNG)),
    "a folder for a file": instead(OPTIMIZER, Path.mkdir),
    "a pipe for a file": instead(SCHEDULER, os.mkfifo),
    "a link to nothing": instead(ADAPTER, lambda path: path.symlink_to("nowhere")),
    "a link to no end": instead(RNG, lambda path: path.symlink_to("/dev/zero")),
    "a file for the checkpoint": instead("", Path.touch),
    "a link for the checkpoint": linked,
    "the step before under its name": of_the_step_before,
    "a model beside the adapter": lambda new, old, dice: shutil.copy(
        new / ADAPTER, new / "model.safetensors"
    ),
    "a folder of shards": lambda new, old, dice: (new / "pytorch_model_fsdp_0").mkdir(),
    "an empty one of a later step": lambda new, old, dice: (new.parent / "checkpoint-999").mkdir(),
    "a file of a later step": lambda new, old, dice: (new.parent / "checkpoint-999").touch(),
    "a number that is none": lambda new, old, dice: (new.parent / "checkpoint-²").mkdir(),
}  # fmt: skip
DAMAGES = SAME_SIZE | OTHER


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def interrupted(entrypoint: Entrypoint, whole: Path) -> tuple[Path, Path, Path]:
    """A run as a kill leaves it: its folder, its newest checkpoint and the one before."""
    run = entrypoint.folder / "outputs" / whole.name
    shutil.copytree(whole, run)
    shutil.rmtree(run / "adapter")
    (run / ".complete").unlink()
    for name, change in (("run.json", {"stages": {}}), ("outcome.json", {"state": "training"})):
        (run / name).write_text(json.dumps(read(run / name) | change))
    *_, old, new, last = checkpoints.named(run / "checkpoints")
    shutil.rmtree(last)
    return run, new, old


def test_half_of_the_damages_keep_every_size() -> None:
    assert len(DAMAGES) >= 40
    assert len(SAME_SIZE) >= 20


@pytest.mark.parametrize("number", range(len(DAMAGES) if DRILL else 3))
def test_a_damaged_checkpoint_is_told_put_aside_and_gone_back_from(
    number: int, entrypoint: Entrypoint, lora: Path, forking: dict[str, str], seed: int
) -> None:
    dice = random.Random(f"{seed}:{number}")
    drawn = list(DAMAGES) if DRILL else random.Random(seed).sample(list(DAMAGES), 3)
    run, new, old = interrupted(entrypoint, lora)
    before, content = sizes(new), contents(new)
    DAMAGES[drawn[number]](new, old, dice)
    if drawn[number] in SAME_SIZE:
        assert sizes(new) == before
        assert contents(new) != content
    result = entrypoint.run(**forking)
    assert result.code == 0, result.err[-3000:]
    told = [line for line in result.said if re.search(r"is put aside as|is kept as", line)]
    print(f"seed {seed}: {drawn[number]}: {told}")
    assert told, result.err[-3000:]
    aside = [*run.glob("checkpoints/damaged/*"), *run.glob("*.kept-*")]
    assert len(aside) == 1
    assert str(aside[0].relative_to(run)) in told[0]
    assert (run / "adapter" / ADAPTER).read_bytes() == (lora / "adapter" / ADAPTER).read_bytes()
    assert losses(run) == losses(lora)
    if aside[0].parent.name == "damaged":
        assert read(run / "run.json")["damaged"][0]["kept"] == str(aside[0].relative_to(run))


# As a user that is not root: nobody may read everything.
AS_A_USER = (
    "setpriv", "--inh-caps=-dac_override,-dac_read_search",
    "--bounding-set=-dac_override,-dac_read_search",
)  # fmt: skip
no_user = pytest.mark.skipif(
    shutil.which("setpriv") is None or os.geteuid() != 0, reason="setpriv takes root's rights"
)


@no_user
@pytest.mark.parametrize("name", [OPTIMIZER, MANIFEST, "", ".."])
def test_what_cannot_be_read_ends_the_start_and_changes_nothing(
    name: str, entrypoint: Entrypoint, lora: Path
) -> None:
    """An older checkpoint would be trained on from, although the newest may be whole."""
    run, new, old = interrupted(entrypoint, lora)
    locked = (new / name).resolve()
    mode = locked.stat().st_mode
    locked.chmod(0)
    environ = clean_environ(**DEFAULTS, **entrypoint.settings)
    result = execute([*AS_A_USER, str(AUTORUN)], entrypoint.folder, environ)
    locked.chmod(mode)
    assert result.code == 200, result.err[-3000:]
    assert f"{locked.relative_to(run)}: Permission denied; nothing is changed" in result.err or (
        f"{(locked / MANIFEST).relative_to(run)}: Permission denied" in result.err
    )
    assert checkpoints.named(run / "checkpoints")[-2:] == [old, new]
    assert not list(run.glob("checkpoints/damaged/*"))


def test_a_clock_that_was_set_back_takes_no_checkpoint(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    """Those that are there are of the future then, and the newest looks like the oldest."""
    run, *_ = interrupted(entrypoint, lora)
    for path in checkpoints.named(run / "checkpoints"):
        os.utime(path, (4e9, 4e9))
    result = entrypoint.run(**forking)
    assert result.code == 0, result.err[-3000:]
    left = [path.name for path in checkpoints.named(run / "checkpoints")]
    assert left == [path.name for path in checkpoints.named(lora / "checkpoints")]
    assert losses(run) == losses(lora)


def test_a_checkpoint_of_an_earlier_version_is_gone_on_from(
    entrypoint: Entrypoint, lora: Path, forking: dict[str, str]
) -> None:
    run, new, _ = interrupted(entrypoint, lora)
    manifest = read(new / MANIFEST)
    sizes = {name: told["bytes"] for name, told in manifest["files"].items()}
    (new / MANIFEST).write_text(json.dumps({"step": manifest["step"], "files": sizes}))
    result = entrypoint.run(**forking)
    assert result.code == 0, result.err[-3000:]
    assert f"{new.name} was made by an earlier version, without digests" in result.err
    assert f"resuming from {new.name}" in result.err
    assert losses(run) == losses(lora)


def test_a_loss_that_is_none_ends_the_training_at_once(
    entrypoint: Entrypoint, forking: dict[str, str]
) -> None:
    start = entrypoint.start(AXOLOTL_LEARNING_RATE="1e30", **forking)
    result = start.wait()
    assert result.code == 6, result.err[-3000:]
    assert re.search(r"training has diverged: .*step \d+", result.lines[-1])
    run = start.only_run()
    for path in checkpoints.named(run / "checkpoints"):
        for tensor in load_file(path / ADAPTER).values():
            assert torch.isfinite(tensor).all()
    assert not (run / "adapter").exists()
    again = entrypoint.run(AXOLOTL_LEARNING_RATE="1e30", **forking)
    assert (again.code, again.lines[-1]) == (6, result.lines[-1])


def test_what_a_save_costs_is_in_the_record(lora: Path) -> None:
    told = read(lora / "run.json")["stages"]["train"]
    assert told["saves"] > 0
    assert 0 < told["verify_seconds"] < told["save_seconds"] < told["training_seconds"]
    share = told["verify_seconds"] / told["save_seconds"]
    each = told["save_seconds"] / told["saves"]
    print(f"a save: {each:.3f} s, {share:.0%} of it checks and digests")


def test_a_damaged_checkpoint_that_is_named_is_one_line(
    entrypoint: Entrypoint, lora: Path, tmp_path: Path
) -> None:
    """Its sizes are looked at by the check, its bytes right before the training."""
    path = tmp_path / "mine" / "checkpoint"
    shutil.copytree(checkpoints.named(lora / "checkpoints")[0], path)
    os.truncate(path / OPTIMIZER, 9)
    result = entrypoint.run(AXOLOTL_RESUME_FROM_CHECKPOINT=str(path))
    assert result.code == 1, result.err[-3000:]
    assert f"AXOLOTL_RESUME_FROM_CHECKPOINT: {path} is not whole" in result.err
    shutil.rmtree(path)
    shutil.copytree(checkpoints.named(lora / "checkpoints")[0], path)
    zeroed(OPTIMIZER)(path, path, random.Random(1))
    result = entrypoint.run(AXOLOTL_RESUME_FROM_CHECKPOINT=str(path))
    assert result.code == 1, result.err[-3000:]
    assert f"{path} is damaged: {OPTIMIZER} has other bytes" in result.lines[-1]

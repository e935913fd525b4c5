"""An export and a merge that are killed anywhere end with the same bytes, once started again.

Killed are whole process groups: at times drawn from the length of an undisturbed start, and
right before things that one does to the disk, drawn from all of them. `make drill` kills
each 30 times over a model of 430 MB; without DRILL it is a sample of that over a small one.
"""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import peft
import pytest
import torch
import transformers

from tests.harness import clean_environ

DRILL = bool(os.environ.get("DRILL"))
KILLS = 30 if DRILL else 4
VOCABULARY, HIDDEN = (32000, 1024) if DRILL else (8000, 256)

# Runs a module that ends its process group right before the n-th thing that Python reports
# to an audit hook about the folder, from opening a file to removing one; prints how many
# things there were.
RUN = """
import os, runpy, signal, sys
module, order, folder, at = *sys.argv[1:4], int(sys.argv[4])
count = 0
def hook(event, arguments):
    global count
    first = arguments[0] if arguments else None
    about = isinstance(first, (str, os.PathLike)) and os.fspath(first).startswith(folder)
    if about or event in ("os.remove", "os.rmdir"):
        count += 1
        if count == at:
            os.killpg(0, signal.SIGKILL)
sys.addaudithook(hook)
sys.argv = [module, order]
try:
    runpy.run_module(module, run_name="__main__")
finally:
    print(count, flush=True)
"""


@dataclass(frozen=True)
class Work:
    """A module's order, and how to start it in a folder of its own."""

    module: str
    folder: Path
    target: Path
    aside: Path

    def start(self, at: int = 0) -> "subprocess.Popen[str]":
        """Begins; ends itself before the `at`-th thing done to the disk."""
        order = self.folder.with_suffix(".json")
        command = [sys.executable, "-c", RUN, f"envtune.engine.{self.module}", str(order)]
        return subprocess.Popen(
            [*command, str(self.folder), str(at)], env=clean_environ(), stdout=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip

    def finish(self) -> tuple[int, float]:
        """Works to the end: how many things were done to the disk, in how many seconds."""
        process = self.start()
        self.wait_for_the_first_file(process)
        begin = time.monotonic()
        while process.poll() is None and self.aside.exists():
            time.sleep(0.001)
        seconds = time.monotonic() - begin
        out, _ = process.communicate(timeout=300)
        assert process.returncode == 0
        return int(out.split()[-1]), seconds

    def wait_for_the_first_file(self, process: "subprocess.Popen[str]") -> None:
        while process.poll() is None and not self.aside.exists():
            time.sleep(0.001)

    def kill_at(self, seconds: float) -> bool:
        """Whether there still was something to kill."""
        process = self.start()
        self.wait_for_the_first_file(process)
        time.sleep(seconds)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return process.returncode == -signal.SIGKILL

    def kill_before(self, at: int) -> bool:
        process = self.start(at)
        process.communicate(timeout=300)
        return process.returncode == -signal.SIGKILL

    def begin_anew(self, before: bool) -> None:
        """The folder without anything, or with what something else made."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if before:
            self.target.mkdir()
            (self.target / "config.json").write_text("of before")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    """A base in shards and an adapter with three tokens more."""
    folder = tmp_path_factory.mktemp("inputs")
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=HIDDEN, intermediate_size=2 * HIDDEN,
        num_attention_heads=8, num_key_value_heads=8, num_hidden_layers=4,
    )  # fmt: skip
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "base", max_shard_size=VOCABULARY * HIDDEN * 4)
    model.resize_token_embeddings(VOCABULARY + 3, mean_resizing=False)
    lora = peft.LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM")
    tuned = peft.get_peft_model(model, lora)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    tuned.save_pretrained(folder / "adapter")
    for name in ("base", "adapter"):
        for path in (embedded / "tiny-llama").glob("*token*"):
            shutil.copy(path, folder / name)
    return folder


def digests(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as stream:
            name = str(path.relative_to(folder))
            found[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return found


def ordered(module: str, inputs: Path, folder: Path) -> Work:
    told = {
        "adapter": inputs / "adapter", "base": inputs / "base", "base_folder": inputs / "base",
        "serving": folder / "made", "target": folder / "made",
    }  # fmt: skip
    text = json.dumps({name: str(value) for name, value in told.items()} | {"new_embeddings": True})
    folder.with_suffix(".json").write_text(text)
    ending = {"export": "partial", "merge": "merging"}[module]
    return Work(module, folder, folder / "made", folder / f".made.{ending}")


@pytest.mark.parametrize("module", ["export", "merge"])
def test_what_was_killed_ends_with_the_same_bytes(
    module: str, inputs: Path, tmp_path: Path, dice: random.Random
) -> None:
    given = digests(inputs)
    work = ordered(module, inputs, tmp_path / "work")
    work.begin_anew(before=True)
    things, seconds = work.finish()
    whole = digests(work.target)
    found, ways = Counter[str](), Counter[str]()
    while found.total() < KILLS:
        work.begin_anew(before := dice.random() < 0.5)
        old = digests(work.target)
        at, after = dice.randint(1, things), dice.uniform(0, 1.1 * seconds)
        way = dice.choice(["before a thing", "at a time"])
        if not (work.kill_at(after) if way == "at a time" else work.kill_before(at)):
            continue
        ways[way] += 1
        left = digests(work.target)
        assert left in ({}, old, whole), (way, before, at, after)
        found["nothing" if not left else "the new" if left == whole else "the old"] += 1
        work.finish()
        assert digests(work.target) == whole, (way, before, at, after)
        assert os.listdir(work.folder) == ["made"], (way, before, at, after)
    assert digests(inputs) == given
    size = sum(path.stat().st_size for path in (inputs / "base").iterdir()) / 2**20
    print(f"{module}: a base of {size:.0f} MB; {things} things done to the disk in {seconds:.1f} s")
    print(f"{module}: killed {dict(ways)}; then under the final name {dict(found)}")

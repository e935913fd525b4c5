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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import peft
import pytest
import torch
import transformers

from envtune.artifacts import checkpoints
from envtune.render import launch
from tests.harness import clean_environ

DRILL = bool(os.environ.get("DRILL"))
KILLS = 30 if DRILL else 10
VOCABULARY, HIDDEN = (32000, 1024) if DRILL else (8000, 256)

# For each number that it reads, does the module's order in a process group of its own, which
# ends right before the n-th thing that Python reports to an audit hook about the folder, from
# opening a file to removing one. It is forked from one that has imported torch, which takes
# longer than the work. Prints the group's id, how many things there were, how it ended.
STARTER = """
import importlib, os, signal, sys
import numpy, safetensors, torch
name, folder, order = sys.argv[1:]
module, sys.argv = importlib.import_module(name), [name, order]
count, at = 0, 0
def hook(event, arguments):
    global count
    first = arguments[0] if arguments else None
    about = isinstance(first, (str, os.PathLike)) and os.fspath(first).startswith(folder)
    if about or event in ("os.remove", "os.rmdir"):
        count += 1
        if count == at:
            os.killpg(0, signal.SIGKILL)
for line in sys.stdin:
    if (child := os.fork()) == 0:
        os.setsid()
        at, code = int(line), 1
        sys.addaudithook(hook)
        try:
            code = module.main() or 0
        finally:
            print("things", count, flush=True)
            os._exit(code)
    print("started", child, flush=True)
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Work:
    """A module's order, and how to have it done or not quite done in a folder of its own."""

    folder: Path
    target: Path
    aside: Path
    starter: "subprocess.Popen[str]"

    def start(self, at: int = 0) -> int:
        """The id of the process, which ends itself before the `at`-th thing done to the disk."""
        self.starter.stdin.write(f"{at}\n")
        self.starter.stdin.flush()
        return self.told("started")

    def told(self, word: str) -> int:
        line = next(line for line in self.starter.stdout if line.startswith(word))
        return int(line.split()[1])

    def until(self, pid: int, *, aside: bool) -> None:
        """Waits until the work has begun, or has its final name; or for the process's end."""
        while self.aside.exists() != aside and Path(f"/proc/{pid}").exists():
            time.sleep(0.001)

    def finish(self) -> tuple[int, float]:
        """Works to the end: how many things were done to the disk, in how many seconds."""
        self.until(pid := self.start(), aside=True)
        begin = time.monotonic()
        self.until(pid, aside=False)
        seconds = time.monotonic() - begin
        things = self.told("things")
        assert self.told("ended") == 0
        return things, seconds

    def killed_at(self, seconds: float) -> bool:
        """Whether there still was something to kill."""
        self.until(pid := self.start(), aside=True)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        return self.told("ended") == -signal.SIGKILL

    def killed_before(self, at: int) -> bool:
        self.start(at)
        return self.told("ended") == -signal.SIGKILL

    def begin_anew(self, before: bool) -> None:
        """The folder without anything, or with what something else made."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if before:
            aside = self.folder / "aside"
            aside.mkdir()
            (aside / "config.json").write_text("of before")
            checkpoints.move(aside, self.target)


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
    tuned.save_pretrained(folder / "adapter", save_embedding_layers=True)
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


@contextmanager
def ordered(module: str, inputs: Path, folder: Path) -> Iterator[Work]:
    told = {
        "adapter": inputs / "adapter", "base": inputs / "base", "base_folder": inputs / "base",
        "serving": folder / "made", "target": folder / "made",
    }  # fmt: skip
    order = folder.with_suffix(".json")
    text = json.dumps({name: str(value) for name, value in told.items()} | {"new_embeddings": True})
    order.write_text(text)
    aside = folder / {"export": ".made.partial", "merge": ".made.merging"}[module]
    command = [sys.executable, "-c", STARTER, launch.ENGINE[module], str(folder), str(order)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=clean_environ(), stdin=pipe, stdout=pipe, text=True
    ) as starter:
        yield Work(folder, folder / "made", aside, starter)


@pytest.mark.parametrize("module", ["export", "merge"])
def test_what_was_killed_ends_with_the_same_bytes(
    module: str, inputs: Path, tmp_path: Path, dice: random.Random
) -> None:
    given = digests(inputs)
    with ordered(module, inputs, tmp_path / "work") as work:
        drill(module, work, dice)
    assert digests(inputs) == given


def drill(module: str, work: Work, dice: random.Random) -> None:
    work.begin_anew(before=True)
    things, seconds = work.finish()
    whole = digests(work.target)
    found, ways = Counter[str](), Counter[str]()
    while found.total() < KILLS:
        work.begin_anew(before := dice.random() < 0.5)
        old = digests(work.target)
        at, after = dice.randint(1, things), dice.uniform(0, 1.1 * seconds)
        way = dice.choice(["before a thing", "at a time"])
        if not (work.killed_at(after) if way == "at a time" else work.killed_before(at)):
            continue
        ways[way] += 1
        left = digests(work.target)
        assert left in ({}, old, whole), (way, before, at, after)
        found["nothing" if not left else "the new" if left == whole else "the old"] += 1
        work.finish()
        assert digests(work.target) == whole, (way, before, at, after)
        assert sorted(os.listdir(work.folder)) == [".made.files", "made"], (way, before, at, after)
    print(f"{module}: {things} things done to the disk in {seconds:.1f} s")
    print(f"{module}: killed {dict(ways)}; then under the final name {dict(found)}")

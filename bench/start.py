"""From a command to the first optimizer step, beside `axolotl preprocess` and `axolotl train`.

Run by `make bench-start` (RUNS=5). Both train the embedded model on its rows, by turns, one
thread each, from the very YAML; by hand it goes without envtune's plugin. Seconds on the wall and
CPU seconds of the process trees, at the moment of the first step; the parts of ours by its events.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import yaml

from envtune.engine import embedded
from envtune.machine import hardware

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
GOAL = 0.35
# Seconds after which there is no first step to wait for.
PATIENCE = 900
_TICK = os.sysconf("SC_CLK_TCK")
Times = dict[str, float]


def environ(folder: Path) -> dict[str, str]:
    """What both are started with: nothing asked of a network, one thread, no cache of before."""
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder), "LANG": "C.UTF-8",
        "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled",
        "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1",
    }  # fmt: skip


def settings(made: Path) -> dict[str, str]:
    return {
        "AXOLOTL_BASE_MODEL": str(made / "tiny-llama"),
        "AXOLOTL_DATASETS__0__PATH": str(made / "instructions.jsonl"),
        "AXOLOTL_SEQUENCE_LEN": "128", "AXOLOTL_MAX_STEPS": "1",
        "SFT_DEVICE": "cpu", "SFT_PARITY": "off",
    }  # fmt: skip


def _processes() -> Iterator[tuple[int, int, float]]:
    """Each process: its number, its parent's, and the CPU seconds of it and what it waited for."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        yield int(path.parent.name), int(fields[1]), sum(map(int, fields[11:15])) / _TICK


def cpu(root: int) -> float:
    """CPU seconds of a process and all that descends from it."""
    found, spent = {root}, {pid: (parent, used) for pid, parent, used in _processes()}
    while below := {pid for pid, (parent, _) in spent.items() if parent in found} - found:
        found |= below
    return sum(spent[pid][1] for pid in found if pid in spent)


def until(
    command: list[str], folder: Path, reached: Callable[[], bool], more: Mapping[str, str]
) -> Times:
    """Wall and CPU seconds of a command until something is reached, or to its end."""
    begun, before = time.monotonic(), os.times()
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            command, cwd=folder, env={**environ(folder), **more}, stdout=log, stderr=log
        )
        while child.poll() is None and not reached():
            assert time.monotonic() < begun + PATIENCE, folder
            time.sleep(0.02)
        wall, spent = time.monotonic() - begun, cpu(child.pid)
        assert child.wait() == 0, (folder / "log").read_text()[-3000:]
    after = os.times()
    whole = after.children_user + after.children_system
    return {
        "wall": wall,
        "cpu": spent or whole - before.children_user - before.children_system,
    }


def ours(made: Path) -> tuple[Times, Times]:
    """The seconds to the first step, and of its parts."""
    folder = Path(tempfile.mkdtemp(prefix="bench-start-"))
    begun = time.time()
    told = until(
        [str(ROOT / "scripts" / "autorun.sh")], folder,
        lambda: any(path.read_text() for path in folder.glob("outputs/*/metrics.jsonl")),
        settings(made),
    )  # fmt: skip
    (path,) = folder.glob("outputs/*/events.jsonl")
    parts = _parts([json.loads(line) for line in path.read_text().splitlines()], begun)
    shutil.rmtree(folder)
    return told, parts


def _parts(events: list[dict[str, object]], begun: float) -> Times:
    """How long each part took, by the events that end them."""
    ends = {
        "bash and check": {"kind": "start"},
        "prepare": {"kind": "stage", "stage": "train", "state": "begun"},
        "imports left": {"kind": "phase", "phase": "data"},
        "data": {"kind": "phase", "phase": "model"},
        "model": {"kind": "phase", "phase": "training"},
        "first step": {"kind": "step"},
    }
    found, last = {}, begun
    for name, end in ends.items():
        at = next(float(str(e["time"])) for e in events if end.items() <= e.items())
        found[name], last = at - last, at
    return found


def by_hand(text: str) -> Times:
    """`axolotl preprocess` to its end, then `axolotl train` to the first step."""
    folder = Path(tempfile.mkdtemp(prefix="bench-start-"))
    (folder / "axolotl.yaml").write_text(text)
    verbs = {
        "preprocess": lambda: False,
        "train": lambda: "'loss'" in (folder / "log").read_text(errors="replace"),
    }
    told = [
        until([str(BIN / "axolotl"), verb, "axolotl.yaml"], folder, reached, {})
        for verb, reached in verbs.items()
    ]
    shutil.rmtree(folder)
    return {unit: sum(one[unit] for one in told) for unit in ("wall", "cpu")}


def rendered(made: Path) -> str:
    """The YAML of the same run, without the plugin."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "axolotl.yaml"
        command = [str(BIN / "envtune"), "configure", "--output", str(path)]
        env = {**environ(Path(name)), **settings(made)}
        subprocess.run(command, env=env, check=True, capture_output=True)
        keys = yaml.safe_load(path.read_text())
    del keys["plugins"]
    return yaml.safe_dump(keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs, made = parser.parse_args().runs, Path(tempfile.mkdtemp(prefix="bench-start-"))
    embedded.make(made)
    text, pairs, parts = rendered(made), list[tuple[Times, Times]](), list[Times]()
    print(f"{hardware.cores()} cores, load {os.getloadavg()[0]:.1f}")
    for _ in range(runs):
        told, detail = ours(made)
        pairs.append((told, by_hand(text)))
        parts.append(detail)
        for unit in ("cpu", "wall"):
            us, them = (one[unit] for one in pairs[-1])
            print(f"{unit:>4}: {us:6.1f} s, by hand {them:6.1f} s: {us / them:.2f}", flush=True)
    for name in parts[0]:
        print(f"{name:>15} {statistics.median(part[name] for part in parts):6.2f} s")
    for unit in ("cpu", "wall"):
        ratio = statistics.median(_ratio(pair, unit) for pair in pairs)
        print(f"median ratio, {unit}: {ratio:.2f}, goal {GOAL}")
    shutil.rmtree(made)


def _ratio(pair: tuple[Times, Times], unit: str) -> float:
    return pair[0][unit] / pair[1][unit]


if __name__ == "__main__":
    main()

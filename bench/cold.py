"""How long a user waits for a word: cold starts of `envtune check` beside its peers.

Run by `make bench-cold`. Each command is started anew, in turn; the median of wall and CPU
seconds is printed, and the ratio to a bare interpreter in the same run. BEFORE=FOLDER names
another checkout, whose code is measured beside this one's.
"""

import os
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = str(ROOT / ".venv" / "bin" / "python")
REPEATS = 15


def environ(**settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **settings}


def once(argv: list[str], env: dict[str, str], folder: str) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(argv, env=env, cwd=folder, capture_output=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        data.write_text('{"text": "a"}\n')
        for name in ("config.json", "tokenizer.json"):
            (Path(folder) / name).write_text("{}")
        (Path(folder) / "model.safetensors").write_bytes(b"\2" + 7 * b"\0" + b"{}")
        good = environ(AXOLOTL_BASE_MODEL=folder, AXOLOTL_DATASETS__0__PATH=str(data))
        bad = good | {"AXOLOTL_LEARNIN_RATE": "1"}
        check = [PYTHON, "-m", "envtune", "check"]
        peer = [PYTHON, "-c", "import axolotl.utils.schemas.config"]
        cases = [
            ("bare interpreter", [PYTHON, "-c", "pass"], good),
            ("envtune check, bad environment", check, bad),
            ("envtune check, good environment", check, good),
            ("import of Axolotl's schema alone", peer, good | {"HF_HUB_OFFLINE": "1"}),
        ]
        if before := os.environ.get("BEFORE"):
            old = {"PYTHONPATH": f"{before}/src"}
            cases[2:2] = [("the same, before", check, bad | old)]
            cases[4:4] = [("the same, before", check, good | old)]
        turns = [[once(argv, env, folder) for _, argv, env in cases] for _ in range(REPEATS)]
        medians = [
            [statistics.median(x) for x in zip(*case, strict=True)]
            for case in zip(*turns, strict=True)
        ]
        print(f"{'command':36}{'wall s':>8}{'CPU s':>8}{'x bare':>8}")
        for (name, _, _), (wall, cpu) in zip(cases, medians, strict=True):
            print(f"{name:36}{wall:8.3f}{cpu:8.3f}{cpu / medians[0][1]:8.1f}")


if __name__ == "__main__":
    main()

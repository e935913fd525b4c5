"""How long a user waits for a word: cold starts of `envtune check` beside its peers.

Run by `make bench-cold`. Each command is started anew; the median of wall and CPU
seconds is printed, and the ratio to a bare interpreter in the same run.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHON = str(ROOT / ".venv" / "bin" / "python")
REPEATS = 15


def environ(**settings: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], **settings}


def measure(argv: list[str], env: dict[str, str], folder: str) -> tuple[float, float]:
    """Median wall and CPU seconds of a command."""
    walls, cpus = [], []
    for _ in range(REPEATS):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(argv, env=env, cwd=folder, capture_output=True, check=False)
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(walls), statistics.median(cpus)


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
        base = 0.0
        print(f"{'command':36}{'wall s':>8}{'CPU s':>8}{'x bare':>8}")
        for name, argv, env in cases:
            wall, cpu = measure(argv, env, folder)
            base = base or cpu
            print(f"{name:36}{wall:8.3f}{cpu:8.3f}{cpu / base:8.1f}")
            sys.stdout.flush()


if __name__ == "__main__":
    main()

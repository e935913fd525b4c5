"""What an environment costs in a warm process: from variables to YAML, or to the refusal.

Run by `make bench-fuzz`. The environments are those of tests/test_fuzz.py; each is timed
alone and the percentiles are printed in milliseconds of CPU time.
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from envtune.cli import configuration
from envtune.errors import Refused
from envtune.supervise import templates
from tests.environments import Environment, environment, furnish

COUNT = 2_000


def seconds(given: Environment) -> tuple[str, float]:
    """How an environment ended, and the CPU seconds until then."""
    started, end = time.process_time(), "made"
    try:
        templates.render_axolotl(configuration.configure((), given).config)
    except Refused:
        end = "refused"
    return end, time.process_time() - started


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else random.SystemRandom().randrange(1_000_000)
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        furnish(Path(folder))
        measured = [seconds(environment(dice, Path(folder))) for _ in range(COUNT)]
    print(f"{COUNT} environments, seed {seed}; ms of CPU time")
    print(f"{'':10}{'count':>7}{'p50':>8}{'p99':>8}{'max':>8}")
    for name in ("made", "refused", "all"):
        times = sorted(1e3 * t for end, t in measured if name in (end, "all"))
        p50, p99, most = (times[int(part * (len(times) - 1))] for part in (0.5, 0.99, 1))
        print(f"{name:10}{len(times):7}{p50:8.1f}{p99:8.1f}{most:8.1f}")


if __name__ == "__main__":
    main()

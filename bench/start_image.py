"""From `docker run` to the first optimizer step, beside Axolotl started by hand in the same image.

Run by `make bench-start-image FLAVOR=cpu`. Both train the image's own demo, by turns, from the very
YAML; by hand it goes without envtune's plugin, and straight to accelerate. Seconds on the wall.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.image.containers import HOME, Container

DEMO = {
    "AXOLOTL_BASE_MODEL": f"{HOME}/demo/tiny-llama",
    "AXOLOTL_DATASETS__0__PATH": f"{HOME}/demo/instructions.jsonl",
    "AXOLOTL_SEQUENCE_LEN": "128",
    "AXOLOTL_LEARNING_RATE": "5e-3",
    "AXOLOTL_MAX_STEPS": "3",
    "SFT_DEVICE": "cpu",
    "SFT_PARITY": "off",
}
# What envtune gives the engine in any case: not to call home, and no second look at the Hub.
QUIET = {
    "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled",
    "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
BY_HAND = (
    "accelerate launch --cpu --num_processes 1 --num_machines 1 --mixed_precision no"
    " --dynamo_backend no -m axolotl.cli.train axolotl.yaml > log 2>&1"
)
LIMIT = 1.3
# Seconds after which there is no first step to wait for.
PATIENCE = 600


def seconds(container: Container, stepped: Callable[[], bool]) -> float:
    """From the start of a container to its first step."""
    started = time.monotonic()
    container.start()
    try:
        while not stepped():
            assert time.monotonic() < started + PATIENCE, container.logs()
            time.sleep(0.05)
        return time.monotonic() - started
    finally:
        container.remove()


def volume() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bench-start-"))
    folder.chmod(0o777)
    return folder


def with_envtune() -> float:
    folder = volume()
    container = Container(DEMO, [f"{folder}:/workspace"])
    return seconds(
        container, lambda: any(p.read_text() for p in folder.glob("outputs/*/metrics.jsonl"))
    )


def rendered() -> str:
    """The YAML of the same run, without the plugin."""
    folder = volume()
    words = ["envtune", "configure", "--output", "/workspace/axolotl.yaml"]
    Container(DEMO, [f"{folder}:/workspace"], command=words).run(asked=".")
    made = yaml.safe_load((folder / "axolotl.yaml").read_text())
    del made["plugins"]
    return yaml.safe_dump(made)


def by_hand(text: str) -> float:
    folder = volume()
    (folder / "axolotl.yaml").write_text(text)
    container = Container(QUIET, [f"{folder}:/workspace"], command=["bash", "-c", BY_HAND])
    return seconds(container, lambda: any("'loss'" in p.read_text() for p in folder.glob("log")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    text, ours, theirs = rendered(), list[float](), list[float]()
    for _ in range(parser.parse_args().runs):
        ours.append(with_envtune())
        theirs.append(by_hand(text))
        print(f"envtune {ours[-1]:6.1f} s   by hand {theirs[-1]:6.1f} s", flush=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    verdict = "within" if ratio <= LIMIT else "OVER"
    print(f"medians {statistics.median(ours):.1f} s and {statistics.median(theirs):.1f} s")
    print(f"ratio {ratio:.2f}, {verdict} {LIMIT}")


if __name__ == "__main__":
    main()

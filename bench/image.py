"""The weight of the image's environments, from the wheels that are locked.

Run by `make bench-image`. The sizes are the index's; the base system, bytecode and weights are
not in them. A wheel is compressed about as a layer of the image is.
"""

import json
import os
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from tests import locks

BUDGET = {"train": 6.0, "train and serve": 9.0}  # GB, compressed
SHOWN = 10


def report(lock: str, *options: str) -> dict[str, Any]:
    """pip's report of what it would install of a lock, by package.

    Raises AssertionError, with what pip says, where it finds no solution.
    """
    environ = dict(os.environ)
    if lock.endswith("cuda"):  # a configured index may offer torch's CPU build
        environ |= {"PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
    # fast-deps: a mirror without metadata is asked for the end of a wheel, not for the whole.
    pip = [sys.executable, "-m", "pip", "--quiet", "--no-cache-dir", "--use-feature=fast-deps"]
    dry = ["install", "--dry-run", "--ignore-installed", "--report", "-", *options]
    command = [*pip, *dry, *locks.pins(*locks.LOCKS[lock]).values()]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    installs = json.loads(done.stdout)["install"]
    return {locks.canonical(install["metadata"]["name"]): install for install in installs}


def size(url: str) -> int:
    """Bytes of a file of the index, or of one that lies here."""
    if url.startswith("file:"):
        return Path(unquote(urlsplit(url).path)).stat().st_size
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD")) as answer:
        return int(answer.headers["Content-Length"])


def files(lock: str) -> dict[str, int]:
    """The name of each file that pip would install, with its bytes."""
    installs = report(lock, "--no-deps").values()
    urls = [install["download_info"]["url"] for install in installs]
    with ThreadPoolExecutor(16) as pool:
        sizes = list(pool.map(size, urls))
    return {unquote(url.rsplit("/", 1)[1]): size for url, size in zip(urls, sizes, strict=True)}


def total(found: dict[str, int]) -> float:
    return sum(found.values()) / 1e9


def show(title: str, found: dict[str, int]) -> None:
    print(f"\n{title}: {total(found):.2f} GB in {len(found)} files, of them the largest:")
    for name in sorted(found, key=found.__getitem__, reverse=True)[:SHOWN]:
        print(f"{found[name] / 1e6:10.1f} MB  {name}")


def main() -> None:
    print("Computed from the locked wheels, base system excluded.")
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(locks.LOCKS, pool.map(files, locks.LOCKS), strict=True))
    for lock, wheels in found.items():
        show(lock, wheels)
    train, serve = found["train, cuda"], found["serve, cuda"]
    show("the same in train and serve, cuda", {n: train[n] for n in train.keys() & serve.keys()})
    print()
    weights = {"train": total(train), "train and serve": total(train) + total(serve)}
    for what, weight in weights.items():
        verdict = "within" if weight <= BUDGET[what] else "OVER"
        print(f"cuda, {what}: {weight:.2f} GB, {verdict} the budget of {BUDGET[what]:.0f} GB")
    print(f"cuda, train and serve, the same stored once: {total(train | serve):.2f} GB")


if __name__ == "__main__":
    main()

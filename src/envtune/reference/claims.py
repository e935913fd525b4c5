"""How large the volumes of a run have to be for a model, by its parameters.

`python -m envtune.reference.claims 70 --full` prints it as patches for kustomize. The bounds are
for checkpoints in 32 bit, which no training exceeds; a quantised copy is within the rounding.
"""

import argparse
import math
import sys
from collections.abc import Mapping

from envtune.reference import commented
from envtune.resolve.saving import KEPT

VOLUMES = ("data", "out", "models")
# What the manifests are made for: billions of parameters, and runs by LoRA that stay.
_BILLIONS, _RUNS = 8.0, 4
# Bytes: of a weight as it is published; of one in training with AdamW's two moments.
_WEIGHT, _TRAINED = 2, 12
# LoRA of rank 16 on all linear layers has this share of a model's parameters (of 1B 0.9 %).
_ADAPTER = 0.01
# One more is written before the oldest goes; the best may be kept besides.
_CHECKPOINTS = KEPT + 2
# The result, and once more what is merged or served of it.
_RESULTS = 2
# GiB for logs, prepared data and data sets of the Hub; sizes are multiples of it.
_STEP = 10


def sizes(
    billions: float = _BILLIONS, runs: int = _RUNS, *, full: bool = False
) -> Mapping[str, str]:
    """The size of each volume. `data` is the user's: it does not follow from the model."""
    count = billions * 1e9
    wanted = {"data": 0.0, "out": of_run(count, full=full) * runs, "models": count * _WEIGHT}
    return {volume: _rounded(size) for volume, size in wanted.items()}


def of_run(parameters: float, *, full: bool) -> float:
    """What a run of a model leaves at most, in bytes."""
    share = 1.0 if full else _ADAPTER
    return parameters * (_CHECKPOINTS * _TRAINED * share + _RESULTS * _WEIGHT)


def _rounded(size: float) -> str:
    return f"{(math.ceil(size / 2**30 / _STEP) + 1) * _STEP}Gi"


def patches(billions: float, runs: int, *, full: bool) -> str:
    """The part of a kustomization that makes the claims as large."""
    at = "/spec/resources/requests/storage"
    made = [
        {
            "target": {"kind": "PersistentVolumeClaim", "name": f"envtune-{volume}"},
            "patch": f"- {{op: replace, path: {at}, value: {size}}}\n",
        }
        for volume, size in sizes(billions, runs, full=full).items()
    ]
    return commented.dump([{"patches": made}])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="envtune.reference.claims", description=__doc__)
    parser.add_argument("billions", type=float, help="parameters of the model, in billions")
    parser.add_argument("--full", action="store_true", help="all weights are trained")
    parser.add_argument("--runs", type=int, default=1, help="runs that stay on the volume")
    return parser.parse_args()


if __name__ == "__main__":
    given = _arguments()
    sys.stdout.write(patches(given.billions, given.runs, full=given.full))

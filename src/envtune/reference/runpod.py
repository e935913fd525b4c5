"""templates/runpod/template.json: a template of RunPod's, as its API takes and shows one.

Its variables are envtune's settings; the image keeps its caches on the volume by itself. No port
is open.
"""

import json
from importlib import metadata
from typing import Any

from envtune.machine.runpod import VOLUME
from envtune.reference import example
from envtune.settings.own.place import MAX_HOURS, ON_FAIL, ON_FINISH

# Gigabytes beside the image and the volume.
DISK = 20
# RunPod's volumes are root's, and its templates name no user.
IMAGE = f"ghcr.io/envtune/envtune:{metadata.version('envtune')}-cuda-root"
_README = """\
Trains what the variables say, publishes or serves it, and stops the pod. Change
AXOLOTL_BASE_MODEL and AXOLOTL_DATASETS; every other key of Axolotl is a variable too.
Gated models need HF_TOKEN={{ RUNPOD_SECRET_HF_TOKEN }}, a secret of your account.
Runs, logs and caches lie on the volume. No port is open: add 22/tcp for SSH, which answers
the PUBLIC_KEY of your account, or 8000/http with SFT_SERVE=1, SFT_SERVE_HOST=0.0.0.0 and
VLLM_API_KEY={{ RUNPOD_SECRET_VLLM_API_KEY }}, which clients have to show.
"""


def text() -> str:
    """The template, in the form of a request that makes one."""
    return json.dumps(_template(), indent=2) + "\n"


def _template() -> dict[str, Any]:
    return {
        "name": "envtune",
        "imageName": IMAGE,
        "category": "NVIDIA",
        "isPublic": False,
        "isServerless": False,
        "containerDiskInGb": DISK,
        "volumeInGb": 100,
        "volumeMountPath": VOLUME,
        "ports": [],
        "dockerEntrypoint": [],
        "dockerStartCmd": [],
        "env": variables(),
        "readme": _README,
    }


def variables() -> dict[str, str]:
    """What a pod is started with, in every form of it."""
    ends = {ON_FINISH: "stop", ON_FAIL: "stop", MAX_HOURS: "24"}
    return {**example.REQUIRED, **ends}

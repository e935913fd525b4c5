"""GPUs that are not here, so that a laptop can check the job of a large machine."""

import re

from envtune.machine.hardware import Gpu, Machine


def _known(name: str, mebibytes: int, *capability: int) -> Gpu:
    return Gpu(name, mebibytes * 2**20, (capability[0], capability[1]))


# Names and memory as NVIDIA's driver reports them.
PRETENDED = {
    "a10": _known("NVIDIA A10", 23028, 8, 6),
    "a100": _known("NVIDIA A100-SXM4-40GB", 40960, 8, 0),
    "a100-80": _known("NVIDIA A100-SXM4-80GB", 81920, 8, 0),
    "a10g": _known("NVIDIA A10G", 23028, 8, 6),
    "a6000": _known("NVIDIA RTX A6000", 49140, 8, 6),
    "b200": _known("NVIDIA B200", 183359, 10, 0),
    "h100": _known("NVIDIA H100 80GB HBM3", 81559, 9, 0),
    "h200": _known("NVIDIA H200", 143771, 9, 0),
    "l4": _known("NVIDIA L4", 23034, 8, 9),
    "l40s": _known("NVIDIA L40S", 46068, 8, 9),
    "rtx3090": _known("NVIDIA GeForce RTX 3090", 24576, 8, 6),
    "rtx4090": _known("NVIDIA GeForce RTX 4090", 24564, 8, 9),
    "rtx5090": _known("NVIDIA GeForce RTX 5090", 32607, 12, 0),
    "t4": _known("Tesla T4", 15360, 7, 5),
    "v100": _known("Tesla V100-SXM2-16GB", 16384, 7, 0),
    "v100-32": _known("Tesla V100-SXM2-32GB", 32768, 7, 0),
}
PRETENDED_NAME = rf"^(?P<name>{'|'.join(PRETENDED)})(x(?P<count>[1-9][0-9]?))?$"


def pretend(text: str) -> Machine:
    """The machine that `<name>` or `<name>x<count>` stands for.

    Each GPU comes with eight cores and twice its memory, about what clouds sell with it.
    """
    match = re.fullmatch(PRETENDED_NAME, text.strip())
    assert match is not None, f"{text} does not match its own setting's pattern"
    gpu, count = PRETENDED[match["name"]], int(match["count"] or 1)
    return Machine((gpu,) * count, cores=8 * count, memory=2 * gpu.memory * count)

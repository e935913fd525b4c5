"""The GPUs whose speed is known: peaks of their data sheets, and how near training comes to them.

`efficiency` is the share of the dense 16-bit peak that matrix products reach: fitted to runs that
were measured where `calibrated` says so, else by analogy with the nearest card that is.
"""

from dataclasses import dataclass, replace

from envtune.machine.hardware import Gpu

GIB = 2**30


@dataclass(frozen=True)
class Card:
    """`tflops` of dense bf16 (fp16 before Ampere, with fp32 sums), `bandwidth` and `link` (to
    another GPU, one way) in GB/s, `memory` in GiB as torch shows it. `error` is the share by which
    a predicted time may be wrong; `calibrated` says by what it was measured, or is empty.
    """

    name: str
    words: tuple[str, ...]
    tflops: float
    bandwidth: float
    memory: float
    capability: tuple[int, int]
    efficiency: float
    error: float
    link: float
    context: float = 0.6
    calibrated: str = ""

    @property
    def cublas(self) -> int:
        """Bytes of cuBLAS's workspaces of the forward and of the backward thread: 32 MiB each on
        Hopper, torch's default of about 8 MiB elsewhere."""
        return 2 * (32 if self.capability == (9, 0) else 8) * 2**20


_LADDER = "12 runs on an H200 (docs/measurements/2026-11-27-plan.md)"
_HOPPER = "published runs of 7B and 8B within 15 %"
_AMPERE = "9 published runs, worst 18 %"
_ADA = "3 published runs of 8B within 25 %"
# Peaks and bandwidths of the vendor's data sheets. Those of GeForce and of the L40S are printed
# twice as high elsewhere: for sums in 16 bits, or with sparsity. Memory as out-of-memory messages
# of torch tell it; the first whose word is in the GPU's name is meant.
CARDS = (
    Card("h200", ("H200",), 990, 4800, 139.8, (9, 0), 0.633, 0.08, 450, calibrated=_LADDER),
    Card("h100-pcie", ("H100 PCIe",), 756, 2000, 79.1, (9, 0), 0.633, 0.25, 32),
    Card("h100", ("H100",), 990, 3350, 79.1, (9, 0), 0.633, 0.15, 450, calibrated=_HOPPER),
    Card("a100-80", ("A100-SXM4-80", "A100 80", "A100-80"), 312, 2039, 79.1, (8, 0), 0.80, 0.18,
         300, calibrated=_AMPERE),
    Card("a100", ("A100",), 312, 1555, 39.5, (8, 0), 0.80, 0.18, 300, calibrated=_AMPERE),
    Card("l40s", ("L40S",), 362, 864, 44.4, (8, 9), 0.55, 0.30, 32),
    Card("rtx4090", ("4090",), 165, 1008, 23.5, (8, 9), 0.95, 0.25, 32, calibrated=_ADA),
    Card("rtx3090", ("3090",), 71, 936, 23.56, (8, 6), 0.95, 0.30, 32),
    Card("t4", ("T4",), 65, 320, 14.56, (7, 5), 0.45, 0.40, 16, context=0.2),
    Card("b200", ("B200",), 2250, 7700, 178.3, (10, 0), 0.55, 0.30, 900),
    Card("rtx5090", ("5090",), 209, 1792, 31.3, (12, 0), 0.95, 0.40, 64),
    Card("a6000", ("A6000",), 155, 768, 47.4, (8, 6), 0.80, 0.40, 32),
    Card("a10g", ("A10G",), 70, 600, 22.0, (8, 6), 0.80, 0.40, 32),
    Card("a10", ("A10",), 125, 600, 22.0, (8, 6), 0.55, 0.40, 32),
    Card("l4", ("L4",), 121, 300, 22.0, (8, 9), 0.45, 0.40, 32),
)  # fmt: skip
# The cards that `--fits` goes through.
OFFERED = tuple(card for card in CARDS if card.name != "h100-pcie")


def of(gpu: Gpu) -> Card:
    """The card of a GPU; one that is not in the table is taken for the nearest of its generation
    with its own memory, and its times for half as wrong again."""
    known = next((card for card in CARDS if any(w in gpu.name for w in card.words)), None)
    shown = gpu.memory / GIB
    if known is not None:
        return replace(known, memory=min(known.memory, shown))
    near = min(CARDS, key=lambda card: (_apart(card, gpu), abs(card.memory - shown)))
    name = gpu.name.removeprefix("NVIDIA ")
    return replace(near, name=name, memory=0.985 * shown, error=0.5, calibrated="")


def _apart(card: Card, gpu: Gpu) -> int:
    (major, minor), (other, less) = card.capability, gpu.capability
    return 10 * abs(major - other) + abs(minor - less)

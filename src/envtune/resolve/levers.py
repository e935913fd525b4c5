"""What makes a training that ran out of a GPU's memory fit, with the bytes that each would save.

By the arithmetic of `sizes`; weights, gradients and two states of the optimizer for what is
trained.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from envtune.resolve.sizes import Size

# Bytes of a parameter.
_HALF, _FOUR_BIT = 2.0, 0.55
_OPTIMIZER, _OPTIMIZER_8BIT = 8.0, 2.0


@dataclass(frozen=True)
class Lever:
    """A setting that lowers the peak, and by how many bytes, as far as arithmetic tells."""

    setting: str
    saves: float

    def __str__(self) -> str:
        return f"{self.setting} (about {self.saves / 2**30:.1f} GiB less)"


def _micro_batch(size: Size) -> Iterator[Lever]:
    micro, steps = size.number("micro_batch_size", 1), size.number("gradient_accumulation_steps", 1)
    if micro > 1:
        half = micro // 2
        text = f"AXOLOTL_MICRO_BATCH_SIZE={half}"
        if micro % 2 == 0:  # the same sequences a step
            text += f" with AXOLOTL_GRADIENT_ACCUMULATION_STEPS={2 * steps}"
        yield Lever(text, size.activations * (1 - half / micro))


def _checkpointing(size: Size) -> Iterator[Lever]:
    if not size.recomputes:
        yield Lever("AXOLOTL_GRADIENT_CHECKPOINTING=true", size.without_recomputing)


def _sequence(size: Size) -> Iterator[Lever]:
    if (length := size.number("sequence_len", 2048)) > 512:
        yield Lever(f"AXOLOTL_SEQUENCE_LEN={length // 2}", size.activations / 2)


def _quantised(size: Size) -> Iterator[Lever]:
    if size.plain.get("adapter") == "lora" and not size.plain.get("load_in_8bit"):
        yield Lever("AXOLOTL_ADAPTER=qlora", size.parameters * (_HALF - _FOUR_BIT))


def _adapter(size: Size) -> Iterator[Lever]:
    if not size.plain.get("adapter"):
        small = "8bit" in str(size.plain.get("optimizer") or "")
        states = _OPTIMIZER_8BIT if small else _OPTIMIZER
        yield Lever("AXOLOTL_ADAPTER=lora", size.parameters * (_HALF + states))
        if not small:
            saved = size.parameters * (_OPTIMIZER - _OPTIMIZER_8BIT)
            yield Lever("AXOLOTL_OPTIMIZER=adamw_8bit", saved)


def _loss(size: Size) -> Iterator[Lever]:
    if size.logits:
        yield Lever("AXOLOTL_CHUNKED_CROSS_ENTROPY=true", size.logits * 0.9)


_LEVERS: tuple[Callable[[Size], Iterator[Lever]], ...] = (
    _micro_batch, _checkpointing, _sequence, _quantised, _adapter, _loss,
)  # fmt: skip


def best(plain: Mapping[str, Any], config: Mapping[str, Any], count: int = 3) -> list[Lever]:
    """The levers that save most, the largest first; none where the model's size is not known."""
    size = Size(plain, config)
    if not all(size.shape):
        return []
    found = [lever for pull in _LEVERS for lever in pull(size) if lever.saves > 0]
    return sorted(found, key=lambda lever: -lever.saves)[:count]

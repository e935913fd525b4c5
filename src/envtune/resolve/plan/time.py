"""How long a step takes: matrix products, attention, the bytes of all other kernels, what does not
grow with the batch, and the Python that launches it all. Pure.

Two constants are fitted, to 8 runs on an H200: the card's `efficiency` and `_PER_LAYER`. The runs
and what the model says of each: docs/measurements/2026-11-27-plan.md.
"""

from envtune.resolve.plan.cards import Card
from envtune.resolve.plan.memory import NONE, OFFLOAD, Choice
from envtune.resolve.plan.shapes import Shape

# Of the peak that attention reaches, and of the bandwidth that the other kernels reach.
_ATTENTION, _STREAMING = 0.35, 0.8
# Seconds a layer and forward pass that do not grow with the batch, where Triton's kernels run. No
# run without them was measured that Python did not bound: such times are not compared with others.
_PER_LAYER = 3.66e-3
# Seconds of Python a layer of a micro-step of plain PyTorch: LoRA by PEFT, all weights, and what
# four bits add.
_PYTHON = {"lora": 12.7e-3, "full": 5.9e-3, "qlora": 15.3e-3}
# Seconds to unpack a parameter of 4 bits on an H200, whose bandwidth this is of.
_UNPACK, _UNPACK_AT = 1.9e-12, 4800
# Of a link's bandwidth that collectives reach, and GB/s to the host's pinned memory by PCIe.
_COLLECTIVE, _TO_HOST = 0.7, 25


def of_micro_step(shape: Shape, choice: Choice, card: Card, seen: float) -> float:
    """Seconds of a forward and a backward of a micro-batch on one GPU. `seen` are the tokens that
    a token sees on average: the sum of squares of documents' lengths by the sum of lengths."""
    slow = 0 if _fused(choice) else shape.layers * _PYTHON[choice.method]
    return max(_on_gpu(shape, choice, card, seen), slow)


def of_step(shape: Shape, choice: Choice, card: Card, seen: float, accumulation: int) -> float:
    """Seconds of an optimizer's step, with what the GPUs tell each other."""
    micro = of_micro_step(shape, choice, card, seen)
    apart = _sharing(shape, choice, card)
    return accumulation * (micro + apart) + _updating(shape, choice, card)


def model_flops(shape: Shape, choice: Choice, seen: float) -> float:
    """FLOPs that a token needs, recompute left out: 6N of all weights, 4N where they are frozen,
    6N of an adapter; N without the embedding, with the head."""
    n, head = shape.touched, shape.vocab * shape.hidden
    attention = 2 * shape.layers * shape.attention * seen
    if choice.full:
        return 6 * (n + head) + 3 * attention
    return 4 * (n + head) + 2 * attention + 6 * shape.adapter(choice.rank)


def _fused(choice: Choice) -> bool:
    """Whether Triton kernels run: Liger's, or Axolotl's for LoRA."""
    return choice.liger or (choice.kernels and not choice.full)


def _passes(choice: Choice) -> int:
    return 1 if choice.recompute == NONE else 2


def _on_gpu(shape: Shape, choice: Choice, card: Card, seen: float) -> float:
    t, passes, peak = choice.tokens, _passes(choice), card.tflops * 1e12
    products = t * _flops(shape, choice) / (card.efficiency * peak)
    attention = 2 * shape.layers * shape.attention * seen * (passes + 2.5)
    others = _bytes(shape, choice) * t / (_STREAMING * card.bandwidth * 1e9)
    fixed = _PER_LAYER * shape.layers * passes if _fused(choice) else 0
    return (
        products
        + t * attention / (_ATTENTION * peak)
        + others
        + _unpacking(shape, choice, card)
        + fixed
        + _offloading(shape, choice)
    )


def _flops(shape: Shape, choice: Choice) -> float:
    """Matrix products of a token, recompute among them."""
    passes, n, head = _passes(choice), shape.touched, shape.vocab * shape.hidden
    if choice.full:
        return 2 * n * passes + 4 * n + 6 * head
    lora = shape.adapter(choice.rank)
    return (2 * n + 2 * lora) * passes + 2 * n + 4 * lora + 4 * head


def _bytes(shape: Shape, choice: Choice) -> float:
    """Bytes that kernels other than matrix products move for a token."""
    h, a, k, f = shape.hidden, shape.attention, shape.kv, shape.ffn * (shape.active or 1)
    passes = _passes(choice)
    layer = (6 * f + 70 * h if choice.full else 16 * f + 56 * h) * (passes + 2.2)
    layer += 0 if choice.liger else 30 * h * passes + 50 * h
    if not (choice.kernels or choice.full):
        layer += 10 * (2 * f + 2 * h + a + 2 * k) * (passes + 1.5)
    return layer * shape.layers + (8 if choice.liger else 30) * shape.vocab


def _unpacking(shape: Shape, choice: Choice, card: Card) -> float:
    if choice.method != "qlora":
        return 0
    a_pass = _UNPACK * shape.linear * _UNPACK_AT / card.bandwidth
    return a_pass * (_passes(choice) + 1)


def _offloading(shape: Shape, choice: Choice) -> float:
    """The layers' inputs to the host and back."""
    if choice.recompute != OFFLOAD:
        return 0
    return 2 * shape.layers * choice.wide * shape.hidden * choice.tokens / (_TO_HOST * 1e9)


def _sharing(shape: Shape, choice: Choice, card: Card) -> float:
    """What GPUs gather and scatter in a micro-step: half of it hides behind the computing."""
    if choice.preset not in ("fsdp2", "zero3"):
        return 0
    weights = 2 * shape.parameters * (1 - 1 / choice.ranks)
    turns = _passes(choice) + 1 + (1 if choice.full else 0)
    return 0.5 * turns * weights / (_COLLECTIVE * card.link * 1e9)


def _updating(shape: Shape, choice: Choice, card: Card) -> float:
    """The optimizer's step, and the gradients that ranks have to agree on."""
    trained = shape.parameters if choice.full else shape.adapter(choice.rank)
    wide = 2 if choice.full else 4
    shared = choice.ranks if choice.preset in ("fsdp2", "zero3") else 1
    update = 7 * wide * trained / shared / (_STREAMING * card.bandwidth * 1e9)
    agreeing = 0.0
    if choice.ranks > 1 and choice.preset in ("ddp", "zero2"):
        agreeing = 2 * wide * trained / (_COLLECTIVE * card.link * 1e9)
    return update + agreeing

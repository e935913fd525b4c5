"""The most bytes that a GPU holds in a step: exact for weights, adapters and optimizer, and of
activations by what each kernel keeps for its backward. Pure.

Each term is named where it is added. Read in transformers 5.16, PEFT 0.20, Liger 0.8.1, Axolotl
0.19 and bitsandbytes 0.50; it reproduces the 23 recorded peaks of docs/measurements/
2026-11-27-plan.md within 0.2 % without a fitted constant.
"""

import math
from dataclasses import dataclass, replace

from envtune.resolve.plan.cards import GIB, Card
from envtune.resolve.plan.shapes import Shape

# NF4 with double quantisation (Dettmers et al. 2023): a half, one byte a block of 64, and four a
# block of 256 of those.
NF4 = 0.5 + 1 / 64 + 4 / 64 / 256
_ADAM8 = 2 * (1 + 4 / 256)  # bitsandbytes' states and their block's scales
# Ids, labels and positions of a token as the collator and the trainer hold them.
_IDS = 40
# Of a pair of tokens, where a mask is made: true or false, and the 16 bits that are added.
_MASK = 3
# What the caching allocator and small tensors take over what is allocated, and how much of a card
# may be taken. The one run that was recorded as out of memory (8B, 32,768 tokens) is refused by it.
MARGIN, FULL = 1.03, 0.98
NONE, RECOMPUTE, OFFLOAD = "none", "full", "offload"


@dataclass(frozen=True)
class Choice:
    """What is chosen for a job, as memory and time see it.

    `micro` sequences of `sequence` slots go through the model at once. `method` is full, lora or
    qlora. `recompute` is none, full or offload. `kernels` are Axolotl's for LoRA. `expanded`:
    keys and values are kept for each head, as sdpa does; `masked`: rows are kept apart by a mask.
    `exact`: embeddings, norms and head in fp32, as Axolotl keeps them in full fine-tuning on one
    GPU. `preset` is single, ddp, fsdp2, zero2 or zero3 over `ranks`.
    """

    method: str
    micro: int
    sequence: int
    packing: bool = True
    recompute: str = NONE
    liger: bool = True
    kernels: bool = True
    rank: int = 16
    dropout: bool = False
    eight_bit_adam: bool = False
    chunked: bool = False
    experts_quantised: bool = False
    expanded: bool = True
    masked: bool = False
    exact: bool = True
    preset: str = "single"
    ranks: int = 1

    @property
    def tokens(self) -> int:
        """Slots of a micro-step, padding among them."""
        return self.micro * self.sequence

    @property
    def full(self) -> bool:
        return self.method == "full"

    @property
    def wide(self) -> int:
        """Bytes of an element of the residual stream."""
        return 4 if self.full and self.exact and self.preset != "fsdp2" else 2


# How much more than is allocated the native allocator has reserved in the recorded runs, by method
# and by whether layers are computed again. Unfused losses split most.
_SPLIT = {
    ("lora", False): 0.022, ("lora", True): 0.035, ("qlora", False): 0.06, ("qlora", True): 0.05,
    ("full", False): 0.04, ("full", True): 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU: what lies there through the step, and what its fullest moment adds."""

    weights: float
    adapter: float
    optimizer: float
    gradients: float
    activations: float
    logits: float
    workspace: float
    context: float

    @property
    def allocated(self) -> float:
        """What torch.cuda.max_memory_allocated tells, in bytes."""
        parts = (self.weights, self.adapter, self.optimizer, self.gradients)
        return sum(parts) + self.activations + self.logits + self.workspace

    @property
    def needed(self) -> float:
        """What has to be free on the card, in bytes."""
        return self.allocated * MARGIN + self.context

    def fits(self, card: Card) -> bool:
        return self.needed <= FULL * card.memory * GIB

    def reserved(self, choice: Choice) -> float:
        """What the native allocator reserves, in bytes: it splits blocks that nothing fits into.
        With expandable segments, which training here has, nearly what is allocated."""
        if not choice.liger:
            split = 0.18 if choice.recompute != NONE and choice.tokens > 4096 else 0.09
        else:
            split = _SPLIT[choice.method, choice.recompute != NONE]
        return self.allocated * (1 + split)


def of(shape: Shape, choice: Choice, card: Card) -> Memory:
    """What a step of a job holds on each GPU at its fullest."""
    lying = _static(shape, choice, card)
    moments = _moments(shape, choice)
    gradients = _gradients(shape, choice)
    best = max(moments, key=lambda moment: moment.total + (gradients if moment.late else 0))
    return replace(
        lying,
        gradients=(gradients if best.late else 0) + best.gradients,
        activations=best.activations,
        logits=best.logits,
        workspace=lying.workspace + best.workspace,
    )


@dataclass(frozen=True)
class _Moment:
    """A moment of a step that may be its fullest. `late`: all weights' gradients are there."""

    activations: float
    logits: float = 0
    gradients: float = 0
    workspace: float = 0
    late: bool = False

    @property
    def total(self) -> float:
        return self.activations + self.logits + self.gradients + self.workspace


def _static(shape: Shape, choice: Choice, card: Card) -> Memory:
    trained = shape.parameters if choice.full else shape.adapter(choice.rank)
    adapter = 0 if choice.full else 4 * trained  # PEFT keeps them in fp32
    weights, optimizer = _weights(shape, choice), _optimizer(shape, choice)
    share = 1 / choice.ranks if choice.preset in ("fsdp2", "zero3") else 1.0
    states = 1 / choice.ranks if choice.preset in ("fsdp2", "zero2", "zero3") else 1.0
    return Memory(
        weights=weights * share + _gathered(shape, choice),
        adapter=adapter * share,
        optimizer=optimizer * states,
        gradients=0,
        activations=0,
        logits=0,
        workspace=card.cublas + _communication(shape, choice, trained),
        context=card.context * GIB,
    )


def _weights(shape: Shape, choice: Choice) -> float:
    if choice.method == "qlora":
        experts = shape.mlp * shape.experts if not choice.experts_quantised else 0
        packed = shape.linear - experts
        return NF4 * packed + 2 * (shape.parameters - packed)
    exact = shape.embeddings + shape.small if choice.wide == 4 else 0
    return 2 * (shape.parameters - exact) + 4 * exact


def _optimizer(shape: Shape, choice: Choice) -> float:
    """Adam's two states, as wide as what they are of."""
    if not choice.full:
        return (_ADAM8 if choice.eight_bit_adam else 8) * shape.adapter(choice.rank)
    if choice.preset in ("zero2", "zero3"):
        return 12 * shape.parameters  # with the fp32 copy that DeepSpeed keeps
    if choice.eight_bit_adam:
        return _ADAM8 * shape.parameters
    exact = shape.embeddings + shape.small if choice.wide == 4 else 0
    return 4 * (shape.parameters - exact) + 8 * exact


def _gradients(shape: Shape, choice: Choice) -> float:
    """Bytes of all weights' gradients; an adapter's are never there at the fullest moment."""
    if not choice.full:
        return 0
    exact = shape.embeddings + shape.small if choice.wide == 4 else 0
    whole = 2 * (shape.parameters - exact) + 4 * exact
    return whole / (choice.ranks if choice.preset in ("fsdp2", "zero2", "zero3") else 1)


def _gathered(shape: Shape, choice: Choice) -> float:
    """What sharding keeps whole: two layers, and the embedding, head and last norm."""
    if choice.preset not in ("fsdp2", "zero3"):
        return 0
    layer = (shape.linear + shape.small) / shape.layers
    whole = 2 * (2 * layer + shape.embeddings)
    return whole * (1 - 1 / choice.ranks)


def _communication(shape: Shape, choice: Choice, trained: int) -> float:
    """Buckets of gradients, DeepSpeed's buckets of 0.5e9 elements, and NCCL's buffers."""
    if choice.ranks == 1:
        return 0
    nccl = 0.75 * GIB
    if choice.preset == "ddp":
        return nccl + (2 if choice.full else 4) * trained
    return nccl + (2 * 2 * 0.5e9 if choice.preset in ("zero2", "zero3") else 0)


def _moments(shape: Shape, choice: Choice) -> tuple[_Moment, ...]:
    """The forward's end, the backward of the last layer, and that of the first."""
    h, f, t, wide = shape.hidden, shape.ffn * (shape.active or 1), choice.tokens, choice.wide
    base = _base(shape, choice)
    again = saved(shape, choice) if choice.recompute != NONE else 0
    if choice.full:
        mlp = t * (again + wide * h + 2 * h + 2 * f)
        late = t * (2 * wide * h + saved(shape, choice) + 2 * h + 2 * f)
        head = wide * shape.vocab * h + 2 * shape.hidden * shape.ffn
        backward = _Moment(base + mlp, gradients=head)
        return (_loss(shape, choice, base), backward, _Moment(late, late=True))
    mlp = t * (again + 4 * h + 2 * f)
    return (_loss(shape, choice, base), _Moment(base + mlp, workspace=_dequantised(shape, choice)))


def _loss(shape: Shape, choice: Choice, base: float) -> _Moment:
    """The head and the loss: two chunks of logits at once where it is fused, else the log-softmax
    in fp32 and both its gradients."""
    h, v, t = shape.hidden, shape.vocab, choice.tokens
    if choice.liger:
        held = base + t * 3 * choice.wide * h
        copies = 4 * v * h + 2 * 2 * v * h if choice.full else 0
        return _Moment(held, logits=2 * (2 * v * chunk(shape, t)), gradients=copies)
    if choice.chunked:
        return _Moment(base + t * (4 * h + 4), logits=t * 6 * v + 6 * v * t / 8)
    return _Moment(base + t * (4 * h + 4), logits=12 * v * t)


def chunk(shape: Shape, tokens: int) -> int:
    """Tokens whose logits Liger's fused loss makes at once: a power of two."""
    parts = math.ceil(shape.vocab / shape.hidden)
    return int(2 ** math.ceil(math.log2(math.ceil(tokens / parts))))


def _base(shape: Shape, choice: Choice) -> float:
    """What every moment of the forward's end has: ids, rotations, and what the layers keep."""
    t, width = choice.tokens, choice.wide
    small = t * (_IDS + 2 * shape.head_dim * width)
    small += _MASK * t * choice.sequence if choice.masked else 0
    lora = 0 if choice.full else 2 * shape.adapter(choice.rank)  # copies in 16 bits
    if choice.recompute == OFFLOAD:
        return small + 2 * width * shape.hidden * t + lora / shape.layers
    if choice.recompute == RECOMPUTE:
        return small + shape.layers * width * shape.hidden * t + lora / shape.layers
    return small + shape.layers * saved(shape, choice) * t + lora


def saved(shape: Shape, choice: Choice) -> float:
    """Bytes that a layer keeps of a token for its backward."""
    h, a, f = shape.hidden, shape.attention, shape.ffn
    attention = 8 * a + 4 * shape.heads  # q, k, v for each head, out, log-sum-exp
    attention -= 0 if choice.expanded else 4 * (a - shape.kv)
    if shape.qk_norm:
        attention += 2 * (a + shape.kv) + 4 * (shape.heads + shape.kv_heads)
    norms = 4 * h * (shape.norms - 2) + (0 if choice.liger else 4 * h)
    if choice.full and choice.wide == 4:
        return 8 * h + 8 + 6 * h + attention + 4 * h + 6 * _inner(shape) + norms
    if choice.full:
        return 8 * h + attention + 6 * _inner(shape) + 8 + norms
    dropped = 3 * (2 * h + a) if choice.dropout else 0
    mlp = _expert_bytes(shape) if shape.experts else 4 * f
    kept = 8 * h + attention + mlp + 8 + norms + dropped
    # Each linear of PEFT casts its own input, and the MLP is not fused.
    return kept if choice.kernels or choice.method == "full" else 1.73 * kept


def _inner(shape: Shape) -> int:
    return shape.ffn * (shape.active or 1)


def _expert_bytes(shape: Shape) -> float:
    return shape.active * (6 * shape.ffn + 2 * shape.hidden) + 8 * shape.experts


def evaluated(shape: Shape, choice: Choice, card: Card) -> int:
    """Sequences, a power of two, whose logits fit beside what lies there through an evaluation: in
    16 bits, and twice in 32 for the loss."""
    lying = _static(shape, choice, card)
    free = FULL * card.memory * GIB - lying.needed - _gradients(shape, choice)
    sequence = choice.sequence * (10 * shape.vocab + 40 * shape.hidden) * MARGIN
    return int(2 ** max(0, math.floor(math.log2(max(1.0, free / sequence)))))


def _dequantised(shape: Shape, choice: Choice) -> float:
    """The one weight that is in 16 bits while it is used."""
    if choice.method != "qlora":
        return 0
    return 2 * shape.ffn * shape.hidden + 4 * shape.ffn * shape.hidden / 64

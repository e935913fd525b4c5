"""How large a training is by its model's config.json and what is set: simple arithmetic.

Of a decoder, per GPU: 34 bytes of activations a token and unit of width in each layer
(Korthikanti et al., 2022, with an attention that keeps no scores), 2 of which stay where the rest
is computed again; logits in the model's precision, in the loss's and their gradients.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_ACTIVATION, _KEPT = 34, 2
# Bytes of a logit: in the model's precision, as float32, and its gradient.
_LOGIT = 2 + 4 + 4
_CHUNKED = ("chunked_cross_entropy", "cut_cross_entropy", "liger_fused_linear_cross_entropy")
# Widths of the two sides of all matrices of a layer: 20 in Llama 3's 8 billions.
_SIDES = 20
# Bytes of a trained parameter in a checkpoint: itself, and Adam's two states of it.
_ADAPTER, _WHOLE = 3 * 4, 3 * 2


@dataclass(frozen=True)
class Size:
    """A training as the arithmetic sees it: what is set, and the model's config.json."""

    plain: Mapping[str, Any]
    config: Mapping[str, Any]

    def number(self, key: str, default: int) -> int:
        value = self.plain.get(key)
        return int(value) if isinstance(value, int | float) and value else default

    @property
    def shape(self) -> tuple[int, int, int]:
        """Width, layers and vocabulary; of a model in several parts those of its text."""
        told = {**self.config, **(self.config.get("text_config") or {})}
        names = (("hidden_size", "n_embd"), ("num_hidden_layers", "n_layer"), ("vocab_size",))
        found = [next((told[n] for n in few if isinstance(told.get(n), int)), 0) for few in names]
        return found[0], found[1], found[2]

    @property
    def tokens(self) -> int:
        return self.number("micro_batch_size", 1) * self.number("sequence_len", 2048)

    @property
    def recomputes(self) -> bool:
        return bool(self.plain.get("gradient_checkpointing"))

    @property
    def parameters(self) -> int:
        """Of the layers and the vocabulary, 12 squares of the width a layer."""
        width, layers, vocabulary = self.shape
        return 12 * layers * width * width + 2 * vocabulary * width

    @property
    def logits(self) -> float:
        fused = any(self.plain.get(name) for name in _CHUNKED)
        return 0.0 if fused else float(self.tokens * self.shape[2] * _LOGIT)

    @property
    def activations(self) -> float:
        width, layers, _ = self.shape
        each = float(self.tokens * width)
        kept = _KEPT * layers + _ACTIVATION if self.recomputes else _ACTIVATION * layers
        return each * kept + self.logits

    @property
    def without_recomputing(self) -> float:
        """Bytes of activations that are kept only where they are not computed again."""
        width, layers, _ = self.shape
        return float(self.tokens * width * ((_ACTIVATION - _KEPT) * layers - _ACTIVATION))

    @property
    def checkpoint(self) -> int:
        """Bytes of a checkpoint, of which the optimizer's state is the most; 0 for unknown."""
        width, layers, _ = self.shape
        if not all(self.shape):
            return 0
        if self.plain.get("adapter"):
            return self.number("lora_r", 16) * layers * _SIDES * width * _ADAPTER
        small = 2 if "8bit" in str(self.plain.get("optimizer") or "") else 1
        return self.parameters * _WHOLE // small

"""Measures steps of any Trainer: tokens that are no padding, seconds, MFU, peak memory, loss.

FLOPs of a token: 6N + 3A where all weights learn, 4N + 2A + 6 x the adapter's where an adapter
does; N are the weights of matrices that a token meets (no embedding, the head counts), and A is
2 x layers x width of attention x the mean length that a token sees. Recomputing is no work.
"""

import time
from typing import Any

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback

# Dense bf16 by the vendors' datasheets, FLOP/s.
PEAKS = {
    "H200": 990e12, "H100 PCIe": 756e12, "H100": 990e12, "B200": 2250e12, "A100": 312e12,
    "L40S": 362e12, "4090": 165e12, "3090": 71e12,
}  # fmt: skip
# What the last measurement found; one process measures one after another.
found: dict[str, Any] = {}


class Meter(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Counts from the end of the `warm`-th step on."""

    def __init__(self, trainer: Any, warm: int) -> None:
        self.warm, self.tokens, self.slots, self.seen = warm, 0, 0, 0.0
        self.losses: list[float] = []
        self.norms: list[float] = []
        self.peak = self.reserved = 0
        self.begun = 0.0
        self.step = trainer.training_step
        self.pad = getattr(trainer.processing_class, "pad_token_id", None)
        trainer.training_step = self._counted
        trainer.add_callback(self)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def _counted(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        lengths = _lengths(inputs, self.pad)
        self.tokens += int(lengths.sum())
        self.seen += float((lengths.double() ** 2).sum())
        self.slots += inputs["input_ids"].numel()
        return self.step(model, inputs, *args, **kwargs)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if torch.cuda.is_available():  # Axolotl's own logging resets the peak
            torch.cuda.synchronize()
            self.peak = max(self.peak, torch.cuda.max_memory_allocated())
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())
        if state.global_step == self.warm:
            self.begun, self.tokens, self.slots, self.seen = time.perf_counter(), 0, 0, 0.0

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        line = state.log_history[-1] if state.log_history else {}
        if "loss" in line:
            self.losses.append(float(line["loss"]))
            self.norms.append(float(line.get("grad_norm") or 0.0))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        seconds = time.perf_counter() - self.begun
        mean = self.seen / max(1, self.tokens)
        rate = self.tokens / seconds
        flops = per_token(kwargs["model"], mean)
        peak = peak_flops()
        third = max(1, len(self.losses) // 3)
        first, last = (sum(x) / third for x in (self.losses[:third], self.losses[-third:]))
        found.update(
            tokens_per_second=rate,
            padding=1 - self.tokens / max(1, self.slots),
            tokens_per_step=self.tokens / max(1, state.global_step - self.warm),
            mfu=rate * flops / peak if peak else None,
            allocated_gib=self.peak / 2**30,
            reserved_gib=self.reserved / 2**30,
            loss=[first, last],
            grad_norm=min(self.norms, default=0.0),
            steps=state.global_step,
        )


def _lengths(inputs: Any, pad: int | None) -> Any:
    """The tokens of each document of a batch, without padding."""
    ids, mask, places = (inputs.get(k) for k in ("input_ids", "attention_mask", "position_ids"))
    real = mask > 0 if mask is not None and mask.shape == ids.shape else torch.ones_like(ids) > 0
    if mask is None and pad is not None:
        real = ids != pad
    if places is None or places.shape != ids.shape:
        return real.sum(-1)
    begins = ((places == 0) & real).flatten().long().cumsum(0)
    return torch.bincount(begins[real.flatten()])


def per_token(model: Any, mean: float) -> float:
    """Model FLOPs of a token in a training step; `mean` is the length that a token sees."""
    config, names = model.config, dict(model.named_parameters())
    matrices = {n: p for n, p in names.items() if p.dim() == 2 and "embed" not in n}
    adapter = sum(p.numel() for n, p in matrices.items() if "lora_" in n)
    size = sum(_elements(p) for n, p in matrices.items() if "lora_" not in n)
    if getattr(config, "tie_word_embeddings", False):
        size += config.vocab_size * config.hidden_size
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * config.num_hidden_layers * width * config.num_attention_heads * mean
    if adapter:
        return float(4 * size + 2 * attention + 6 * adapter)
    return float(6 * size + 3 * attention)


def _elements(parameter: Any) -> int:
    """The weights of a matrix, of which bitsandbytes packs several in a byte."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel() if state is not None else parameter.numel())


def peak_flops() -> float | None:
    """The card's dense bf16 peak, or None where it is not known."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for card, peak in PEAKS.items() if card in name), None)


class Measured(BasePlugin):  # type: ignore[misc]  # axolotl ships no types
    """Named in an Axolotl configuration: measures it after `bench_warm` steps."""

    warm = 1

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        Meter(trainer, Measured.warm)

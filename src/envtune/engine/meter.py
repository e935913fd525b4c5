"""What a training measures of itself: slots beside tokens, speed, and a GPU's fullest moment."""

import time
from pathlib import Path
from typing import Any

import torch

from envtune import files
from envtune.runs.contents import PLAN


class Meter:
    """Counts what goes through the model. `planned` is what config/plan.json says, or nothing."""

    def __init__(self, trainer: Any, run_dir: Path) -> None:
        self.slots, self.allocated, self.reserved = 0, 0, 0
        self.began: tuple[int, int, float] | None = None  # tokens, slots and seconds of the start
        self.last = (0, 0, 0.0)
        self.world = trainer.args.world_size
        try:
            self.planned: dict[str, Any] = files.read_json(run_dir / PLAN)
        except FileNotFoundError:
            self.planned = {}
        take_step = trainer.training_step

        def counted(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            ids = inputs.get("input_ids") if hasattr(inputs, "get") else None
            if isinstance(ids, torch.Tensor):
                self.slots += self.world * ids.numel()
            return take_step(model, inputs, *args, **kwargs)

        trainer.training_step = counted

    def begin(self, tokens: int) -> None:
        """`tokens` that were seen before this start."""
        self.last = self.began = (tokens, self.slots, time.monotonic())

    def look(self) -> None:
        """After a step: Axolotl sets the peak back when it logs memory, so the largest is kept."""
        if torch.cuda.is_available():
            self.allocated = max(self.allocated, torch.cuda.max_memory_allocated())
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())

    def since_last(self, tokens: int) -> dict[str, float]:
        """Speed, padding and MFU since the line before; `tokens` are real ones, seen so far."""
        now = (tokens, self.slots, time.monotonic())
        told, self.last = self._told(self.last, now), now
        return told

    def since_begin(self, tokens: int) -> dict[str, float]:
        """The same of this start."""
        now = (tokens, self.slots, time.monotonic())
        return {} if self.began is None else self._told(self.began, now)

    def _told(self, then: tuple[int, int, float], now: tuple[int, int, float]) -> dict[str, float]:
        tokens, slots, seconds = (b - a for a, b in zip(then, now, strict=True))
        if tokens <= 0 or seconds <= 0:
            return {}
        speed = tokens / seconds
        told = {"tokens_per_second": round(speed, 1)}
        if slots >= tokens:
            told["padding"] = round(1 - tokens / slots, 4)
        if self.planned:  # model FLOPs, recompute left out, of the GPUs' dense peak
            told["mfu"] = round(speed * self.planned["flops_per_token"] / self.planned["peak"], 4)
        return told

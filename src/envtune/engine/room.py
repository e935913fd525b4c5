"""Whether the next checkpoint has room on its volume, told before half of it is written.

The last one tells how much a checkpoint takes; before there is one the tensors do that it will
hold. A volume that is full all the same is named, with what was needed and what is free: torch
and safetensors name neither.
"""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from envtune import files
from envtune.errors import Exit
from envtune.failures.table import recognise

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoRoom(Exception):
    """A checkpoint does not fit: which, what it needs and what is free."""


class Room:
    """Looks before each save of a Trainer. `limit` is how many checkpoints stay (None: all), and
    `note` tells of sizes, in bytes. Raises NoRoom, also before the first step."""

    def __init__(self, trainer: Any, note: Callable[..., None], limit: int | None) -> None:
        self.trainer, self.note, self.limit = trainer, note, limit
        self.main = trainer.args.process_index == 0
        self.weights, self.size = _weights(trainer.model), 0
        if str(trainer.args.save_strategy).rpartition(".")[2].lower() != "no":
            self._refuse(Path(trainer.args.output_dir), self._forecast())
        self.save, trainer._save_checkpoint = trainer._save_checkpoint, self._fitting

    def _forecast(self) -> int:
        """Bytes of a checkpoint before there is one: its weights and the optimizer's state, which
        before the first step is Adam's of its name, or none."""
        if self.trainer.args.save_only_model:
            return self.weights
        states = getattr(self.trainer.optimizer, "state", None) or {}
        held = [v for state in states.values() if isinstance(state, dict) for v in state.values()]
        if held:
            return self.weights + sum(_bytes(v) for v in held if isinstance(v, torch.Tensor))
        name = str(self.trainer.args.optim).lower()
        trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
        if "8bit" in name:
            return self.weights + 2 * sum(int(p.numel()) for p in trained)
        return self.weights + (2 * sum(map(_bytes, trained)) if "adam" in name else 0)

    def _fitting(self, *args: Any, **kwargs: Any) -> Any:
        step = self.trainer.state.global_step
        folder = Path(self.trainer.args.output_dir) / f"checkpoint-{step}"
        needed = self.size or self._forecast()
        self._refuse(folder, needed)
        try:
            result = self.save(*args, **kwargs)
        except Exception as error:
            if _is_full(error):
                raise NoRoom(_told(folder, needed)) from error
            raise
        if self.main:
            self.size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
            self.note(checkpoint_bytes=self.size, bytes_to_come=self._to_come(folder.parent))
        return result

    def _refuse(self, folder: Path, needed: int) -> None:
        free = files.free(folder)
        if self.main and free is not None and free < needed:
            raise NoRoom(_told(folder, needed))

    def _to_come(self, folder: Path) -> int:
        """Bytes by which what is saved grows until the end, with the final weights."""
        state, args = self.trainer.state, self.trainer.args
        every = max(1, int(state.save_steps or args.save_steps or 1))
        saves: int = (state.max_steps - state.global_step) // every
        if self.limit:  # the oldest goes once the new one is whole
            saves = min(saves, max(1, self.limit + 1 - len(list(folder.glob("checkpoint-*")))))
        return saves * self.size + self.weights


def _told(folder: Path, needed: int) -> str:
    free = files.free(folder)
    return f"{folder.resolve()} needs about {needed:,} bytes, and {free:,} are free"


def _is_full(error: BaseException) -> bool:
    """Also where the cause alone tells: torch closes its archive a second time."""
    told = recognise(f"{type(error).__module__}.{type(error).__qualname__}: {error}")
    full = getattr(error, "errno", None) in _FULL or (told and told.exit == Exit.DISK)
    cause = error.__cause__ or error.__context__
    return bool(full) or (cause is not None and _is_full(cause))


def _weights(model: Any) -> int:
    """Bytes of the weights in a checkpoint: an adapter's alone where there is one."""
    adapter = hasattr(model, "peft_config")
    return sum(_bytes(p) for p in model.parameters() if p.requires_grad or not adapter)


def _bytes(tensor: torch.Tensor) -> int:
    """Of a sharded one the whole, which its number of elements is."""
    return int(tensor.numel() * tensor.element_size())

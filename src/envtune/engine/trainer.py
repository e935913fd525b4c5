"""What the Trainer is made to do that it has no option for."""

import errno
from collections.abc import Callable
from typing import Any

import torch

from envtune.errors import Exit, recognise

# Everything that reads a checkpoint.
_LOADERS = (
    "_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_scaler", "_load_rng_state",
    "_init_training_state",
)  # fmt: skip
# What tells of a volume or a permission and not of what lies there.
_VOLUME = (errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOSPC, errno.ETIMEDOUT)


class NotLoaded(Exception):
    """A checkpoint cannot be loaded: what the loader said."""


class NotFinite(Exception):
    """A loss or a value that is to be saved is NaN or infinite."""


def tell_of_loading(trainer: Any) -> None:
    """What a checkpoint fails with is told from what the data or the configuration fails with."""
    for name in _LOADERS:
        setattr(trainer, name, _telling(getattr(trainer, name)))


def _telling(load: Callable[..., Any]) -> Callable[..., Any]:
    def told(*args: Any, **kwargs: Any) -> Any:
        try:
            return load(*args, **kwargs)
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            if _of_the_machine(error, text):
                raise
            raise NotLoaded(text) from error

    return told


def _of_the_machine(error: Exception, text: str) -> bool:
    """Whether memory, a GPU or a volume fails: the same checkpoint may load the next time."""
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _VOLUME):
        return True
    failure = recognise(text) or recognise(f"torch.{text}")
    return failure is not None and failure.exit in (Exit.MEMORY, Exit.DISK, Exit.HARDWARE)


def stop_where_not_finite(trainer: Any) -> None:
    """A loss that is none ends the training: the Trainer would report 0.0 and go on to its end."""
    take_step = trainer.training_step

    def checked(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = take_step(model, inputs, *args, **kwargs)
        if not torch.isfinite(loss).all():
            told = f"the loss of step {trainer.state.global_step + 1} is {loss.mean().item()}"
            raise NotFinite(f"{told}, on a batch of {_described(inputs)}")
        return loss

    trainer.training_step = checked


def _described(inputs: Any) -> str:
    """The shape of a batch: rows and tokens of each."""
    shape = getattr(inputs.get("input_ids") if isinstance(inputs, dict) else None, "shape", None)
    return f"{shape[0]} rows of {shape[-1]} tokens" if shape else "its rows"


def end_at_the_last_step(trainer: Any) -> None:
    """The Trainer looks at the end only after a step, and a resume from a checkpoint of the last
    one would train one too many."""
    run_epoch = trainer._run_epoch

    def unless_done(*args: Any, **kwargs: Any) -> None:
        if trainer.state.global_step >= trainer.state.max_steps:
            trainer.control.should_training_stop = True
        else:
            run_epoch(*args, **kwargs)

    trainer._run_epoch = unless_done

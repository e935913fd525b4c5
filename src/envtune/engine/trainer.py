"""What the Trainer is made to do that it has no option for."""

import errno
import math
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import has_length

from envtune.engine import batches
from envtune.errors import Exit
from envtune.failures.table import recognise

# Everything that reads a checkpoint.
_LOADERS = (
    "_load_from_checkpoint", "_load_optimizer_and_scheduler", "_load_scaler", "_load_rng_state",
    "_init_training_state",
)  # fmt: skip
# What tells of a volume or a permission and not of what lies there.
_VOLUME = (errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOSPC, errno.ETIMEDOUT)


class NotLoaded(Exception):
    """A checkpoint cannot be loaded: what the loader said."""


class BeyondTheEnd(Exception):
    """A checkpoint is of a step behind the last one of the settings."""


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
            raise NotFinite(f"{told}, on a batch of {batches.described(trainer, inputs)}")
        return loss

    trainer.training_step = checked


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


def go_on_in_a_stream(trainer: Any) -> None:
    """The Trainer takes a stream for one epoch that is as long as the training, and would skip
    past its end where a resume is of a later pass. How far each pass was is in the checkpoint."""
    init = trainer._init_training_state

    def in_its_pass(max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        told: tuple[int, int] = init(max_steps, *args, **kwargs)
        if has_length(trainer.train_dataset) or not trainer.state.global_step:
            return told
        passes, part = divmod(trainer.state.epoch, 1)
        return int(passes), round(part * max_steps * trainer.args.gradient_accumulation_steps)

    trainer._init_training_state = in_its_pass


def epoch(args: Any, state: Any, loader: Any) -> int:
    """The number of the epoch that begins, from 0, as the Trainer counts where all have the same
    length. Nobody else tells a sampler behind the skipping of a resume, or behind a rank's share.
    """
    return int(
        state.global_step // max(1, math.ceil(len(loader) / args.gradient_accumulation_steps))
    )


class SeededGroups(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Has rows that are grouped by length drawn by the seed and the epoch: of the random numbers
    of all a resume has others where it begins, in every epoch but the first."""

    def __init__(self, trainer: Any) -> None:
        self.generator = torch.Generator()
        self.drawn = trainer._get_train_sampler
        trainer._get_train_sampler = self._seeded

    def _seeded(self, *args: Any, **kwargs: Any) -> Any:
        sampler = self.drawn(*args, **kwargs)
        if isinstance(sampler, LengthGroupedSampler):
            sampler.generator = self.generator
        return sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        loader = kwargs["train_dataloader"]
        if has_length(loader):
            self.generator.manual_seed(args.seed + epoch(args, state, loader))

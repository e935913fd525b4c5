"""What the Trainer is made to do that it has no option for."""

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import has_length

from envtune.artifacts import checkpoints


def mark_checkpoints(trainer: Any, *, main: bool) -> None:
    """Each checkpoint is marked before its first file: half of one is told from others' files."""
    save = trainer._save_checkpoint

    def marked(*args: Any, **kwargs: Any) -> Any:
        if main:
            step = trainer.state.global_step
            checkpoints.begin(Path(trainer.args.output_dir) / f"checkpoint-{step}", step)
        return save(*args, **kwargs)

    trainer._save_checkpoint = marked


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

"""What the Trainer is made to do that it has no option for."""

from pathlib import Path
from typing import Any

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

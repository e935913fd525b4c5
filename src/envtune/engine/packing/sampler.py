"""Has the Trainer train on planned rows, and a resume go on with the same ones.

Axolotl's own sampler draws an epoch anew after a resume, drops the rest of each, and repeats one
epoch's order on several ranks. What is set here are attributes of one trainer.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from axolotl.utils.samplers import get_dataset_lengths
from torch.utils.data import BatchSampler
from transformers import TrainerCallback

from envtune.engine.packing import order
from envtune.engine.packing.plan import Batch, Plan, Shape, plan
from envtune.engine.trainer import epoch

# Trainings whose rows nobody packs, or that have no number of rows to plan with.
_OTHERS = ("rl", "reward_model", "process_reward_model", "streaming", "pretraining_dataset")
_MASKED = -100
# Axolotl's own share of the steps in which the learning rate rises.
_WARMUP = 0.03


def is_planned(cfg: Any) -> bool:
    """Whether a training's rows are planned here."""
    return bool(cfg.sample_packing) and not any(cfg.get(key) for key in _OTHERS)


def spare_estimates(cfg: Any) -> None:
    """Keeps Axolotl from packing all rows ten times, for a number of steps that is not used.
    Small numbers would make it find a set to evaluate on too small."""
    cfg.sample_packing_eff_est = cfg.sample_packing_eff_est or 1.0
    cfg.total_num_tokens = 1 << 50


def arguments(cfg: Any) -> dict[str, Any]:
    """Training arguments by the true number of steps, which the Trainer counts itself."""
    told: dict[str, Any] = {"max_steps": cfg.max_steps or -1}
    if cfg.warmup_steps is None:
        ratio = _WARMUP if cfg.warmup_ratio is None else cfg.warmup_ratio
        told["warmup_steps"] = min(ratio, 1 - 1e-9)  # a number of steps from 1 on
    # Axolotl says yes where rows to evaluate on are not packed, and leaves the last of them out.
    return told | {"dataloader_drop_last": bool(cfg.dataloader_drop_last)}


class PlannedSampler(BatchSampler):  # type: ignore[misc]  # accelerate asks for one
    """The batches of an epoch, each a list of rows, each a list of documents' numbers.

    It has no batch_size: then accelerate takes batches of any number of rows, and cuts nothing
    off an evaluation's losses.
    """

    def __init__(self, planned: Plan, seed: int) -> None:
        self.planned, self.seed, self.epoch = planned, seed, 0
        self.sampler, self.batch_size, self.drop_last = None, None, True

    def __iter__(self) -> Iterator[Batch]:
        return iter(self.planned.deal(self.seed, self.epoch))

    def __len__(self) -> int:
        return self.planned.batches


class Packing(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Gives a trainer its samplers, tells them the epoch, and notes the order at each save."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.sampler = self._sampler(trainer.train_dataset)
        self.order = order.told(
            self.sampler.planned,
            get_dataset_lengths(trainer.train_dataset),
            trainer.args.seed,
            trainer.args.gradient_accumulation_steps,
        )
        self.evaluated = trainer._get_eval_sampler  # where rows to evaluate on are not packed
        trainer._get_train_sampler = self._to_train
        trainer._get_eval_sampler = self._to_evaluate
        trainer.data_collator = Apart(trainer.data_collator)
        if trainer.args.eval_sample_packing:
            trainer.eval_data_collator = Apart(trainer.eval_data_collator)

    def _to_train(self, dataset: Any = None) -> PlannedSampler:
        self.sampler = self._sampler(self.trainer.train_dataset if dataset is None else dataset)
        return self.sampler

    def _to_evaluate(self, dataset: Any = None) -> Any:
        if dataset is not None and self.trainer.args.eval_sample_packing:
            return self._sampler(dataset, evaluates=True)
        # Axolotl turns it off with packing, and one rank would wait for the others' last batch.
        self.trainer.accelerator.even_batches = True
        return self.evaluated(dataset)

    def _sampler(self, dataset: Any, *, evaluates: bool = False) -> PlannedSampler:
        lengths = np.asarray(get_dataset_lengths(dataset))
        shape = self._shape(evaluates=evaluates)
        return PlannedSampler(plan(lengths, shape), self.trainer.args.seed)

    def _shape(self, *, evaluates: bool) -> Shape:
        """As Axolotl has it: rows of one sequence, or one long row for attentions of such."""
        args = self.trainer.args
        micro = self.trainer.state.train_batch_size or args.per_device_train_batch_size
        many, curriculum = bool(args.multipack_real_batches), bool(args.curriculum_sampling)
        return Shape(
            capacity=args.max_seq_length * (1 if many else micro),
            rows=micro if many else 1,
            world=args.world_size,
            documents=args.sample_packing_bin_size,
            ordered=not evaluates and (curriculum or bool(args.sample_packing_sequentially)),
            shuffled=not curriculum,
        )

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.sampler.epoch = epoch(args, state, kwargs["train_dataloader"])

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            order.note(self.order, Path(args.output_dir) / f"checkpoint-{state.global_step}")


class Apart:
    """A collator for documents that are not learned from the end of the one before: the first
    token has a label where prompts are trained too, and alone nothing stands before it."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, batch: list[list[dict[str, Any]]]) -> Any:
        for document in (document for row in batch for document in row):
            document["labels"][0] = _MASKED
        return self.collate(batch)

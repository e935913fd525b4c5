"""What the Trainer is made to do, on stand-ins of one: where a resume goes on, what is drawn."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers.trainer_pt_utils import LengthGroupedSampler

from envtune.engine import trainer as made


def stand_in(**more: Any) -> Any:
    """A Trainer as far as it is asked."""
    args = SimpleNamespace(seed=3, gradient_accumulation_steps=2)
    return SimpleNamespace(args=args, **more)


@pytest.mark.parametrize(
    ("step", "epoch", "rows", "wanted"),
    [
        (31, 1 + 24 / 120, iter(()), (1, 24)),  # of a pass of 19 steps
        (9, 18 / 120, iter(()), (0, 18)),
        (0, 0.0, iter(()), (0, 0)),
        (31, 2.5, [1, 2, 3], (0, 0)),
    ],
)
def test_a_stream_goes_on_in_the_pass_that_a_checkpoint_is_of(
    step: int, epoch: float, rows: Any, wanted: tuple[int, int]
) -> None:
    state = SimpleNamespace(global_step=step, epoch=epoch)
    one = stand_in(
        train_dataset=rows, state=state, _init_training_state=lambda *args, **kwargs: (0, 0)
    )
    made.go_on_in_a_stream(one)
    assert one._init_training_state(60, 60, 1, "checkpoint", None) == wanted


def test_groups_of_an_epoch_are_the_same_whatever_was_drawn_before() -> None:
    def groups(step: int) -> list[int]:
        sampler = LengthGroupedSampler(2, lengths=[n % 7 for n in range(40)])
        one = stand_in(_get_train_sampler=lambda dataset=None: sampler)
        callback = made.SeededGroups(one)
        torch.rand(step + 1)
        state = SimpleNamespace(global_step=step)
        callback.on_epoch_begin(one.args, state, None, train_dataloader=range(20))
        return list(one._get_train_sampler())

    assert groups(0) == groups(3)
    assert groups(10) == groups(19)
    assert groups(0) != groups(10)

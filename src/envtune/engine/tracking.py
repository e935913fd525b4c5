"""Trackers that may fail: one that does is tried again twice and then left out.

A tracker's callback raises in the middle of a step when its server has gone away, and
takes a training with it that nothing else is wrong with.
"""

import logging
import sys
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    KubeflowCallback,
)

from envtune import channel
from envtune.failures.table import gist
from envtune.supervise import trackers

LOG = logging.getLogger("envtune")
# Failures in a row before a tracker is left out.
_TRIES = 3
_MLFLOW_RUN = "MLFLOW_RUN_ID"
# Axolotl's own, which send its configuration to a tracker.
_OF_AXOLOTL = "SaveAxolotlConfig"
_EVENTS = tuple(name for name in dir(TrainerCallback) if name.startswith("on_"))


class Guarded(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """A tracker's callback whose failures are told and not raised."""

    def __init__(self, tracker: TrainerCallback) -> None:
        self.tracker = tracker
        self.failures = 0

    def hear(self, event: str, *args: Any, **kwargs: Any) -> Any:
        if self.failures >= _TRIES:
            return None
        try:
            heard = getattr(self.tracker, event)(*args, **kwargs)
        except Exception as error:  # whatever a client library raises
            self.failures += 1
            left = "; it is left out now" if self.failures == _TRIES else ""
            name = type(self.tracker).__name__.removesuffix("Callback")
            LOG.warning("tracker %s: %s%s", name, gist(f"{type(error).__name__}: {error}"), left)
            return None
        self.failures = 0
        return heard


class Progress(Guarded):
    """Kubeflow's: of a training that was stopped it would say that it is complete."""

    def __init__(self, tracker: TrainerCallback, run_dir: Path) -> None:
        super().__init__(tracker)
        self.run_dir = run_dir

    def hear(self, event: str, *args: Any, **kwargs: Any) -> Any:
        if event == "on_train_end" and channel.stop_requested(self.run_dir):
            return None
        return super().hear(event, *args, **kwargs)


def _hearing(event: str) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: self.hear(event, *args, **kwargs)


for _event in _EVENTS:
    setattr(Guarded, _event, _hearing(_event))


def leave_lost(run_dir: Path, environ: MutableMapping[str, str]) -> None:
    """Has MLflow begin a new run where the noted one was deleted: to go on with it is an error,
    after which this start would not be tracked at all."""
    id_ = environ.get(_MLFLOW_RUN, "")
    if id_ not in trackers.read(run_dir).get("mlflow", {}).values():
        return  # none, or one that the user names
    import mlflow

    try:
        if mlflow.get_run(id_).info.lifecycle_stage == "active":
            return
        why = "was deleted"
    except Exception as error:  # whatever a client library raises
        why = f"is not there: {gist(str(error))}"
    LOG.warning("tracker MLflow: the run %s %s; a new one is begun", id_, why)
    del environ[_MLFLOW_RUN]


def note(run_dir: Path, uri: str) -> None:
    """Notes which run MLflow has made of this one, so that a restart goes on with it."""
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None and (active := mlflow.active_run()) is not None:
        trackers.note_mlflow(run_dir, uri, active.info.run_id)


def guard(trainer: Any, run_dir: Path) -> None:
    """Puts a guard around each tracker of a trainer."""
    callbacks = trainer.callback_handler.callbacks
    trainer.callback_handler.callbacks = [_guarded(one, run_dir) for one in callbacks]


def _guarded(one: TrainerCallback, run_dir: Path) -> TrainerCallback:
    if isinstance(one, KubeflowCallback):
        return Progress(one, run_dir)
    known = isinstance(one, tuple(INTEGRATION_TO_CALLBACK.values()))
    return Guarded(one) if known or type(one).__name__.startswith(_OF_AXOLOTL) else one

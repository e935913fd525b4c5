"""The Axolotl plugin: seeds, measures, commits and stops a training run.

Axolotl neither seeds before it makes an adapter nor survives a SIGTERM, and its exit code
tells little. The plugin writes metrics.jsonl and outcome.json into the run folder, polls
`stop` at each step and then ends the run with a committed checkpoint.
"""

import json
import math
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from axolotl.integrations.base import BasePlugin
from transformers import TrainerCallback, set_seed

from envtune import channel, files
from envtune.channel import Outcome
from envtune.engine import beats, learned, room, tracking, train
from envtune.engine.data import handover
from envtune.engine.export import fourbit
from envtune.engine.layouts import written
from envtune.engine.meter import Meter
from envtune.engine.packing import order, sampler
from envtune.engine.saving import Saves
from envtune.engine.trainer import (
    BeyondTheEnd,
    SeededGroups,
    end_at_the_last_step,
    go_on_in_a_stream,
    stop_where_not_finite,
    tell_of_loading,
)
from envtune.events import KINDS, Stream
from envtune.redaction import redact
from envtune.resolve.owned import CHECKPOINTS
from envtune.settings import sources
from envtune.supervise.trackers import KEYS

# Seconds between two steps shown in outcome.json.
_SHOW = 0.5
# What events call by another name than the Trainer and Axolotl, and in bytes.
_MEMORY = {
    "memory/max_allocated (GiB)": "memory",
    "memory/device_reserved (GiB)": "memory_reserved",
}


class EnvtunePlugin(BasePlugin):  # type: ignore[misc]  # axolotl ships no types
    """Named in the rendered YAML. Its folder is the run folder."""

    def __init__(self) -> None:
        super().__init__()
        self.account = Account(Path(os.environ.get(channel.RUN_DIR, ".")))

    def register(self, cfg: dict[str, Any]) -> None:
        """The first hook, before the configuration is validated."""
        beats.register(self.account.run_dir, self.account.rank)
        self.account.update(state="starting")
        _report_exceptions(self.account)
        if resume := os.environ.get(channel.RESUME):
            cfg["resume_from_checkpoint"] = resume
        for key in KEYS:  # where the tracker did not answer
            if cfg.get(key) and (value := os.environ.get(key.upper())):
                cfg[key] = value

    def get_input_args(self) -> str:
        """The keys that Axolotl would drop without a word if nobody declared them."""
        return "envtune.engine.rows.RowArgs"

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> Any:
        """The rows that were prepared for this run, or None: then Axolotl prepares them."""
        train.begin()
        self.account.update(state="data")
        if cfg.world_size > 1 and os.environ.get("ACCELERATE_USE_CPU") == "true":
            _make_ranks_on_cpu(cfg)
        if sampler.is_planned(cfg):
            sampler.spare_estimates(cfg)
        return handover.meta(cfg, self.account.run_dir)

    def pre_model_load(self, cfg: Any) -> None:
        """Seeds before PEFT draws the adapter's weights; Axolotl seeds only afterwards."""
        self.account.update(state="model")
        set_seed(cfg.seed if cfg.seed is not None else 42)

    def post_model_load(self, cfg: Any, model: Any) -> None:
        """Before the first evaluation, after which a 4-bit base would learn otherwise."""
        fourbit.keep_exact(model)

    def post_trainer_create(self, cfg: Any, trainer: Any) -> None:
        """The artifact's tokenizer lays a chat out as its rows are, which are tokens by now."""
        if self.account.main:
            folder, wanted = self.account.run_dir / "config", os.environ.get(channel.LAYOUT, "")
            layout = written.write(cfg, trainer.processing_class, folder, wanted)
            if layout and layout.template:
                trainer.processing_class.chat_template = layout.template

    def get_training_args(self, cfg: Any) -> dict[str, Any]:
        """Counts tokens without padding, and keeps the count in every checkpoint. What a start
        was evaluated with is not evaluated again by one that goes on with it."""
        packed = sampler.arguments(cfg) if sampler.is_planned(cfg) else {}
        once = {"eval_on_start": False} if _goes_on(cfg.resume_from_checkpoint) else {}
        return {"include_num_input_tokens_seen": "non_padding", **packed, **once}

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[TrainerCallback]:
        packing = sampler.Packing(trainer) if sampler.is_planned(cfg) else None
        told = packing.order if packing else {}
        order.compare_ranks(told)
        if cfg.resume_from_checkpoint and channel.RESUME_FORCE not in os.environ:
            order.compare(told, Path(cfg.resume_from_checkpoint))
        tracking.leave_lost(self.account.run_dir, os.environ)
        tracking.guard(trainer, self.account.run_dir)
        saves = Saves(trainer, self.account.run_dir, main=self.account.main)
        room.Room(trainer, self.account.note, saves.limit)
        tell_of_loading(trainer)
        stop_where_not_finite(trainer)
        if self.account.main:
            self._tell_rows(cfg, trainer)
        end_at_the_last_step(trainer)
        go_on_in_a_stream(trainer)
        meter = Meter(trainer, self.account.run_dir)
        return [
            packing or SeededGroups(trainer),
            RunCallback(self.account, saves, meter),
            beats.Beats(self.account.note),
        ]

    def _tell_rows(self, cfg: Any, trainer: Any) -> None:
        """What is learned, before the first step; a reward model's labels are no tokens."""
        if cfg.reward_model or cfg.process_reward_model:
            return
        tokenizer = trainer.processing_class
        tokenizer = getattr(tokenizer, "tokenizer", tokenizer)  # a processor's own
        ends = tokenizer.convert_tokens_to_ids([tokenizer.eos_token, *(cfg.eot_tokens or ())])
        known = [end for end in dict.fromkeys(ends) if isinstance(end, int)]
        learned.tell(trainer.train_dataset, tokenizer, known, self.account.run_dir)

    def post_train_unload(self, cfg: Any) -> None:
        """The last hook: the final weights are written."""
        self.account.update(state="finished")


class Account:
    """The outcome as this process knows it. Rank 0 writes it, every rank holds it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.outcome = Outcome(owner=os.environ.get(channel.OWNER, ""))
        self.rank = int(os.environ.get("RANK", "0"))
        self.main = self.rank == 0
        self.shown = 0.0
        self.events = Stream(run_dir, sources.read().secrets if self.main else ())

    def update(self, **changes: Any) -> None:
        before, self.outcome = self.outcome.state, replace(self.outcome, **changes)
        if self.main:
            if self.outcome.state != before:
                self.tell("phase", phase=self.outcome.state, max_steps=self.outcome.max_steps)
            self.outcome.write(self.run_dir)
            self.shown = time.monotonic()

    def tell(self, kind: str, **fields: Any) -> None:
        """An event, of rank 0 alone."""
        if self.main:
            self.events.add(kind, **fields)

    def note(self, **changes: Any) -> None:
        """Notes how far it is; a reader sees it twice a second at most, for a slow volume's sake,
        but at once that something else is done."""
        other = changes.get("doing", self.outcome.doing) != self.outcome.doing
        self.outcome = replace(self.outcome, **changes)
        if self.main and (other or time.monotonic() > self.shown + _SHOW):
            self.outcome.write(self.run_dir, durable=False)
            self.shown = time.monotonic()


def _report_exceptions(account: Account) -> None:
    """An exception that ends this process becomes the outcome, whichever rank it is."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        seen = channel.read_outcome(account.run_dir)
        if kind is not KeyboardInterrupt and (seen is None or seen.state != "failed"):
            module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
            text = redact(f"{module}{kind.__qualname__}: {error}", sources.read().secrets)
            failed = replace(
                account.outcome, state="failed", phase=account.outcome.state, error=text
            )
            failed.write(account.run_dir)
        previous(kind, error, trace)

    sys.excepthook = hook


class RunCallback(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Writes the metrics, commits checkpoints, and ends the run when asked."""

    def __init__(self, account: Account, saves: Saves, meter: Meter) -> None:
        self.account, self.saves, self.meter = account, saves, meter
        self.metrics = account.run_dir / channel.METRICS
        self.supervisor = os.environ.get(channel.SUPERVISOR)
        self.stopping = False
        self.save_every = float(os.environ.get(channel.SAVE_SECONDS) or math.inf)
        self.started = self.saved = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started = self.saved = time.monotonic()
        self.meter.begin(int(state.num_input_tokens_seen))
        if state.global_step > state.max_steps:
            told = f"it is of step {state.global_step} and the training ends at {state.max_steps}"
            raise BeyondTheEnd(told)
        if self.account.main:
            # The first evaluation is of the step before the first: it is another's, or comes anew.
            last = state.global_step - (not _goes_on(os.environ.get(channel.RESUME)))
            kept = _truncate(self.metrics, last)
            # Time goes on where the resumed checkpoint was, so that rates stay true.
            self.started -= kept[-1]["seconds"] if kept else 0.0
            _truncate(self.account.run_dir / channel.EVALUATIONS, last)
            tracking.note(self.account.run_dir, os.environ.get("MLFLOW_TRACKING_URI", ""))
        resumed = os.environ.get(channel.RESUME)
        self.account.tell("resumed", step=state.global_step, checkpoint=resumed)
        self.account.update(
            state="training",
            step=state.global_step,
            max_steps=state.max_steps,
            resumed_from=state.global_step,
            world_size=args.world_size,
        )

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """`log_history` holds full precision where `logs` may hold rounded text."""
        if not self.account.main or not state.log_history:
            return
        line = dict(state.log_history[-1])
        if "loss" in line:
            told = self._append(self.metrics, line)
            self.account.tell("step", max_steps=state.max_steps, **_of_an_event("step", line, told))
        elif "eval_loss" in line:
            told = self._append(self.account.run_dir / channel.EVALUATIONS, line)
            self.account.tell("evaluation", **_of_an_event("evaluation", line, told))

    def _append(self, path: Path, logged: dict[str, Any]) -> dict[str, Any]:
        line = channel.line(logged, time.monotonic() - self.started)
        if path == self.metrics and "tokens" in line:
            line |= self.meter.since_last(line["tokens"])
        path.parent.mkdir(exist_ok=True)
        with path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        return line

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        self.meter.look()
        self.account.note(step=state.global_step, **self._peaks())
        if state.global_step < state.max_steps:
            due = time.monotonic() - self.saved >= self.save_every
            stop, save = _any_rank((self._asked(), due), args.device)
            self.stopping = self.stopping or stop
            control.should_save = control.should_save or save or stop
            control.should_training_stop = control.should_training_stop or stop
        return control

    def _asked(self) -> bool:
        """A stop file, or no supervisor left that could write one."""
        if channel.stop_requested(self.account.run_dir):
            return True
        return self.supervisor is not None and not channel.alive(self.supervisor)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Every rank's files are written; the manifest makes it one to resume from."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
        folder, before = self.saves.commit(state), self.account.outcome
        self.saved = time.monotonic()
        self.account.update(checkpoint=str(folder), **self.saves.told(), **self._totals(state))
        self.account.tell(
            "save", step=state.global_step, **_of_a_save(before, self.account.outcome)
        )

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """After a stop nothing is left to do: the final weights are not these."""
        if self.stopping:
            self.account.update(state="stopped", **self._totals(state))
            raise SystemExit(0)
        early = state.global_step < state.max_steps  # by early stopping or a loss watchdog
        told = {**self.saves.told(), **self._totals(state)}
        self.account.update(step=state.global_step, early=early, **told)

    def _totals(self, state: Any) -> dict[str, Any]:
        """Tokens and seconds over all starts of the run."""
        seconds = round(time.monotonic() - self.started, 3)
        tokens = int(state.num_input_tokens_seen)
        told = self.meter.since_begin(tokens)
        rates = {name: told.get(name) for name in ("padding", "mfu")}
        return {"tokens": tokens, "seconds": seconds, **rates, **self._peaks()}

    def _peaks(self) -> dict[str, int]:
        """A GPU's fullest moment so far, in bytes."""
        return {"peak_allocated": self.meter.allocated, "peak_reserved": self.meter.reserved}


def _of_an_event(kind: str, logged: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
    """The fields that an event has of a line of metrics, memory in bytes."""
    found = {name: value for name, value in line.items() if name in KINDS[kind]}
    memory = {name: logged.get(key) for key, name in _MEMORY.items() if name in KINDS[kind]}
    return found | {name: round(gib * 2**30) for name, gib in memory.items() if gib}


def _of_a_save(before: Outcome, after: Outcome) -> dict[str, Any]:
    return {
        "checkpoint": after.checkpoint,
        "seconds": round(after.save_seconds - before.save_seconds, 3),
        "verify_seconds": round(after.verify_seconds - before.verify_seconds, 3),
    }


def _goes_on(checkpoint: str | None) -> bool:
    """Whether a start goes on from a checkpoint of this run, and not from one that was brought."""
    return bool(checkpoint) and Path(str(checkpoint)).parent == Path(CHECKPOINTS)


def _make_ranks_on_cpu(cfg: Any) -> None:
    """Axolotl puts the model of rank N on device N, and accelerate calls each rank's CPU
    cpu:0, which torch.load does not know when it resumes."""
    cfg.device_map = {"": "cpu"}
    torch.serialization.register_package(
        0, lambda storage: None, lambda storage, place: storage if place == "cpu:0" else None
    )


def _any_rank(flags: tuple[bool, ...], device: Any) -> tuple[bool, ...]:
    """Whether any rank says so, of each; all ranks get the same answer at the same step."""
    if not torch.distributed.is_initialized():
        return flags
    told = torch.tensor([int(flag) for flag in flags], device=device)
    torch.distributed.all_reduce(told, op=torch.distributed.ReduceOp.MAX)
    return tuple(map(bool, told.tolist()))


def _truncate(path: Path, step: int) -> list[dict[str, Any]]:
    """Drops the lines after `step`, which a resumed run writes again; returns the rest."""
    if not path.exists():
        return []
    lines = filter(None, map(channel.read_line, files.read_bytes(path).splitlines()))
    kept = [line for line in lines if line["step"] <= step]
    files.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
    return kept

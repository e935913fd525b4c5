"""How a training saves: checked before, whole and told by digests after, the oldest removed last.

The Trainer removes old checkpoints by the clock and before the new one is whole: its limit is
taken from it, and checkpoints go by their steps, after the commit.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from envtune import files
from envtune.artifacts import best, checkpoints, manifests, weights
from envtune.engine.trainer import NotFinite
from envtune.runs.contents import RECORD

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Saves:
    """Checks, marks and commits each checkpoint of a Trainer, and measures what that costs."""

    def __init__(self, trainer: Any, run_dir: Path, *, main: bool) -> None:
        self.trainer, self.main = trainer, main
        self.run = _key(run_dir)
        args = trainer.args
        self.limit, args.save_total_limit = args.save_total_limit, None
        self.by = best.rating(args.metric_for_best_model, args.greater_is_better)
        self.load, trainer._load_best_model = trainer._load_best_model, self._load_best
        self.damaged: list[dict[str, str]] = []
        self.count, self.seconds, self.checked, self.begun = 0, 0.0, 0.0, 0.0
        self.save, trainer._save_checkpoint = trainer._save_checkpoint, self._marked

    def _marked(self, *args: Any, **kwargs: Any) -> Any:
        """Each is marked before its first file: half of one is told from others' files."""
        self.begun, step = time.monotonic(), self.trainer.state.global_step
        _refuse_what_is_not_finite(self.trainer, step)
        self.checked += time.monotonic() - self.begun
        if self.main:
            checkpoints.begin(self._folder(step), step)
        return self.save(*args, **kwargs)

    def _folder(self, step: int) -> Path:
        return Path(self.trainer.args.output_dir) / f"checkpoint-{step}"

    def commit(self, state: Any) -> Path:
        """Makes it one to resume from, once every rank has written its files."""
        folder, started = self._folder(state.global_step), time.monotonic()
        if self.main:
            _refuse_what_is_not_whole(folder, state.global_step)
            checkpoints.commit(folder, state.global_step, self.run)
        self.checked += time.monotonic() - started
        if self.main:
            found = best.find(folder.parent, state.log_history, self.by)
            best.point(folder.parent, found)
            checkpoints.rotate(folder.parent, self.limit, found)
        self.count += 1
        self.seconds += time.monotonic() - self.begun
        return folder

    def _load_best(self) -> None:
        """Loads the best whose every byte is as it was written, on all ranks the same one; where
        none is left the weights of the last step stay."""
        found = _of_rank_0(self._whole_best() if self.main else None)
        self.trainer.state.best_model_checkpoint = found
        if found is not None:
            self.load()

    def _whole_best(self) -> str | None:
        """What is not whole is put aside. Raises OSError where that cannot be told."""
        folder, history = Path(self.trainer.args.output_dir), self.trainer.state.log_history
        while (found := best.find(folder, history, self.by)) is not None:
            reason = manifests.problem(found, checkpoints.step_of(found), self.run)
            if reason is None:
                return str(found)
            kept = checkpoints.put_aside(found)
            self.damaged.append({"checkpoint": found.name, "reason": reason, "kept": str(kept)})
            best.point(folder, best.find(folder, history, self.by))
        return None

    def told(self) -> dict[str, Any]:
        """For the outcome: saves and seconds of this start; the share of checks and digests."""
        return {
            "damaged": tuple(self.damaged),
            "saves": self.count,
            "save_seconds": round(self.seconds, 3),
            "verify_seconds": round(self.checked, 3),
        }


def _of_rank_0(found: str | None) -> str | None:
    told = [found]
    if torch.distributed.is_initialized():
        torch.distributed.broadcast_object_list(told)
    return told[0]


def _key(run_dir: Path) -> str:
    """The key of the run, or nothing where there is no record of one."""
    try:
        return str(files.read_json(run_dir / RECORD).get("key") or "")
    except FileNotFoundError:
        return ""


def _refuse_what_is_not_finite(trainer: Any, step: int) -> None:
    """Looks at what is about to be saved where it lies, which costs no reading of files."""
    for name, tensor in _saved(trainer):
        if _holds_nonsense(tensor.to_local() if hasattr(tensor, "to_local") else tensor):
            raise NotFinite(f"{name} holds NaN or infinity after step {step}")


def _holds_nonsense(tensor: Any) -> bool:
    """By its ends, which show NaN and infinity and take no memory: a second tensor may not fit.
    Quantised ones have no ends."""
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.dtype in _FLOATS
    return plain and tensor.numel() > 0 and not torch.isfinite(torch.stack(tensor.aminmax())).all()


def _saved(trainer: Any) -> Iterator[tuple[str, Any]]:
    """The weights that are trained and the state of their optimizer, of this rank."""
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            yield name, parameter.detach()
    for number, state in enumerate(getattr(trainer.optimizer, "state", {}).values()):
        for name, value in state.items() if isinstance(state, dict) else ():
            if isinstance(value, torch.Tensor):
                yield f"{name} of the optimizer's parameter {number}", value


def _refuse_what_is_not_whole(folder: Path, step: int) -> None:
    """Raises OSError or ValueError where a file that a resume needs was not written, or not
    to its end."""
    written = checkpoints.state(folder).get("global_step")
    if written != step:
        raise ValueError(f"{folder}/trainer_state.json tells of step {written}, not of {step}")
    for name in ("scheduler", "rng_state", "optimizer"):
        # DeepSpeed keeps the optimizer in a folder of its own.
        if not (any(folder.glob(f"{name}*")) or any(folder.glob("global_step*"))):
            raise ValueError(f"{folder} has no {name}")
    for path in folder.glob("*.safetensors"):
        if not weights.is_whole(path):
            raise ValueError(f"{path} is not as long as its header says")

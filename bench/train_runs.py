"""Trains one contender after another in this process: python bench/train_runs.py ORDER.json

The order has the job, `runs` of a name, a kind (axolotl or trl), keys and steps, or a `sweep` by
successive halving, and the seconds that it may take. Each result is a line of JSON.
"""

import contextlib
import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.state import AcceleratorState, GradientState

from bench import train_meter
from bench.train_job import Job

Run = dict[str, Any]


def measure(job: Job, run: Run, folder: Path) -> Run:
    """One run to its end, and what was measured; what it failed with is told."""
    train_meter.found.clear()
    train_meter.Measured.warm = run["warm"]
    begun, error = time.monotonic(), None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            (_trl if run["kind"] == "trl" else _axolotl)(job, run, folder)
    except torch.OutOfMemoryError:
        error = "OOM"
    except Exception as failed:
        error = f"{type(failed).__name__}: {failed}"[:300]
    told = {"name": run["name"], "keys": run["keys"], "error": error, **train_meter.found}
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {**told, "seconds": round(time.monotonic() - begun, 1)}


def _axolotl(job: Job, run: Run, folder: Path) -> None:
    from axolotl.cli.config import load_cfg
    from axolotl.cli.train import do_train

    place = folder / run["name"].replace(" ", "-").replace("/", "-")
    given = run["keys"]
    written = {
        **given, "max_steps": run["steps"], "save_strategy": "no", "logging_steps": 1,
        "output_dir": str(place), "dataset_prepared_path": str(folder / "prepared"),
        "plugins": [*(given.get("plugins") or ()), "bench.train_meter.Measured"],
    }  # fmt: skip
    for key in ("save_steps", "num_epochs", "resume_from_checkpoint"):
        written.pop(key, None)
    path = place.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(written))
    _forget_plugins()
    from axolotl.cli.args import TrainerCliArgs

    do_train(load_cfg(str(path)), TrainerCliArgs())


def _forget_plugins() -> None:
    """The run before had its own, and Axolotl keeps them for the process."""
    from axolotl.integrations.base import PluginManager

    PluginManager.get_instance().plugins.clear()


def _trl(job: Job, run: Run, folder: Path) -> None:
    """SFTTrainer as its pages show it: a model, rows, LoRA on all linear layers."""
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig, SFTTrainer

    rows = load_dataset("json", data_files=job.rows, split="train")
    dtype = torch.bfloat16 if job.gpu else torch.float32
    keys = {
        "output_dir": str(folder / "trl"), "max_steps": run["steps"], "max_length": job.length,
        "learning_rate": 2e-4, "logging_steps": 1, "save_strategy": "no", "report_to": [],
        "bf16": job.gpu, "use_cpu": not job.gpu, **run["keys"],
    }  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(job.model, dtype=dtype),
        args=SFTConfig(**keys),
        train_dataset=rows,
        peft_config=LoraConfig(
            r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )
    train_meter.Meter(trainer, run["warm"])
    trainer.train()


def counts(told: Run) -> bool:
    """Whether a figure is one: the loss fell and gradients were there."""
    first, last = told.get("loss", (0.0, 0.0))
    return told["error"] is None and last < first and told["grad_norm"] > 0


def halve(job: Job, sweep: Run, folder: Path, until: float) -> None:
    """Each rung trains the better half of the one before twice as long; the last one counts."""
    left: list[Run] = sweep["runs"]
    steps, fewest = sweep["steps"], sweep["left"]
    while left and time.monotonic() < until:
        last = len(left) <= fewest
        rung = []
        for run in left:
            if time.monotonic() > until:
                break
            told = measure(job, {**run, "steps": steps, "warm": sweep["warm"]}, folder)
            tell({**told, "rung": steps, "last": last})
            if told["error"] is None and told.get("grad_norm", 0) > 0:
                rung.append((told["tokens_per_second"], run))
        if last:
            return
        rung.sort(key=lambda pair: pair[0], reverse=True)
        left = [run for _, run in rung[: max(fewest, len(rung) // 2)]]
        steps = min(2 * steps, sweep["longest"]) if len(left) > fewest else sweep["longest"]


def tell(line: Run) -> None:
    """A line for the one who asked."""
    print("RESULT " + json.dumps(line), flush=True)


def main() -> None:
    order = json.loads(Path(sys.argv[1]).read_text())
    job, folder = Job(**order["job"]), Path(order["folder"])
    until = time.monotonic() + order["seconds"]
    for run in order.get("runs", ()):
        tell({**measure(job, run, folder), "last": True})
    if sweep := order.get("sweep"):
        halve(job, sweep, folder, until)


if __name__ == "__main__":
    main()

"""envtune's plan for only a model and data, beside what others would set, on this machine.

Run by `make bench-train` (MODEL=1b: a shape of random weights, a folder, or a name of the Hub;
SECONDS=540). The others: Axolotl's own defaults, RunPod's fine-tuning pod, TRL's SFTTrainer, and
the best of a sweep of hand configurations by successive halving in one process. Every one trains
the same LoRA on the same rows; a figure counts where the loss falls and gradients are there.
Without a GPU the embedded model trains a few steps, which shows that the program works.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from bench import train_job
from bench.train_job import Job
from bench.train_runs import counts

Run = dict[str, Any]
# What a CPU needs beside Axolotl's defaults.
_CPU = {
    "bf16": False, "fp16": False, "lora_mlp_kernel": False, "lora_qkv_kernel": False,
    "lora_o_kernel": False, "lora_embedding_kernel": False, "dataloader_num_workers": 0,
    "dataloader_pin_memory": False, "attn_implementation": "sdpa",
}  # fmt: skip
_LIGER = {
    "plugins": ["axolotl.integrations.liger.LigerPlugin"], "liger_rope": True,
    "liger_rms_norm": True, "liger_glu_activation": True, "liger_fused_linear_cross_entropy": True,
}  # fmt: skip
# RunPod's template for Axolotl: one row at a time, packed, recomputed, no kernels.
_POD = {
    "micro_batch_size": 1, "gradient_accumulation_steps": 4, "gradient_checkpointing": True,
    "sample_packing": True, "attn_implementation": "sdpa", "optimizer": "adamw_torch_fused",
}  # fmt: skip
_NO_KERNELS = {"lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False}
# Sequences of one optimizer step in the sweep.
_GLOBAL = 32
OURS, SWEEP = "envtune's plan", "the sweep's best"


def plan(job: Job, folder: Path) -> Run:
    """What envtune resolves for this model and these rows, and nothing else that was set."""
    words = [
        f"AXOLOTL_BASE_MODEL={job.model}", f"AXOLOTL_DATASETS__0__PATH={job.rows}",
        *(() if job.gpu else ("SFT_DEVICE=cpu", f"AXOLOTL_SEQUENCE_LEN={job.length}")),
    ]  # fmt: skip
    path = folder / "plan.yaml"
    command = [sys.executable, "-m", "envtune", "configure", "--output", str(path), *words]
    subprocess.run(command, check=True, stdout=sys.stderr)
    made: Run = yaml.safe_load(path.read_text())
    return made


def contenders(job: Job, folder: Path, steps: int, warm: int) -> list[Run]:
    """Who runs by themselves: name, kind, keys and steps."""
    common = job.lora() | ({"bf16": True, "tf32": True} if job.gpu else _CPU)
    defaults = job.lora() | ({} if job.gpu else _CPU)
    kinds = (
        (OURS, "axolotl", plan(job, folder)),
        ("Axolotl's defaults", "axolotl", defaults | {"micro_batch_size": 1}),
        ("RunPod's pod", "axolotl", common | _POD | _NO_KERNELS),
        ("TRL's SFTTrainer", "trl", {}),
    )
    return [
        {"name": name, "kind": kind, "keys": keys, "steps": steps, "warm": warm}
        for name, kind, keys in kinds
    ]


def grid(job: Job) -> Iterator[Run]:
    """The hand configurations. Kernels are the same in all: they patch a whole process."""
    common = job.lora() | ({"bf16": True, "tf32": True, **_LIGER} if job.gpu else _CPU)
    batches = (1, 2, 4, 8, 16, 32) if job.gpu else (2, 8)
    recomputed = (False, True) if job.gpu else (False,)
    for batch, again, packed in itertools.product(batches, recomputed, (True, False)):
        keys = common | {
            "micro_batch_size": batch, "gradient_accumulation_steps": _GLOBAL // batch,
            "gradient_checkpointing": again, "sample_packing": packed,
            "attn_implementation": "sdpa",
        }  # fmt: skip
        name = f"micro {batch}{', recompute' if again else ''}{', packed' if packed else ''}"
        yield {"name": name, "kind": "axolotl", "keys": keys}


def asked(order: Run, folder: Path, seconds: float) -> Iterator[Run]:
    """Has a process of its own do what an order says; its results as they come."""
    for part in ("config", "data"):  # where envtune's plugin writes
        (folder / part).mkdir(exist_ok=True)
    path = folder / "order.json"
    path.write_text(json.dumps({**order, "folder": str(folder), "seconds": seconds}))
    environ = {
        **os.environ, "AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled",
        "AXOLOTL_TEE_STDOUT": "0", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1",
        "ENVTUNE_RUN_DIR": str(folder), "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        **({} if order["job"]["gpu"] else {"CUDA_VISIBLE_DEVICES": ""}),
    }  # fmt: skip
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.train_runs", str(path)],
            env=environ, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("RESULT "):
                yield json.loads(line.removeprefix("RESULT "))
        if child.wait():
            print(f"a process ended with {child.returncode}: {folder / 'log'}", file=sys.stderr)


def table(results: dict[str, Run]) -> Iterator[str]:
    """Ratios first: each beside the sweep's best, or ours where there was none."""
    base = results.get(SWEEP) or results.get(OURS) or {}
    best = base.get("tokens_per_second") or float("inf")
    yield _line("ratio", "real tok/s", "MFU", "padding", "peak GiB", "loss", "what")
    for name, told in results.items():
        if not counts(told):
            why = told["error"] or f"loss {told.get('loss')}, gradient {told.get('grad_norm')}"
            yield _line(*["-"] * 6, f"{name}: does not count: {why}")
            continue
        rate, (first, last) = told["tokens_per_second"], told["loss"]
        yield _line(
            f"{rate / best:.2f}", f"{rate:,.0f}", f"{told['mfu']:.1%}" if told["mfu"] else "-",
            f"{told['padding']:.0%}", f"{told['allocated_gib']:.1f}", f"{first:.3f} > {last:.3f}",
            name,
        )  # fmt: skip


def _line(*cells: str) -> str:
    widths = (6, 11, 7, 8, 9, 15)
    left = "  ".join(cell.rjust(wide) for cell, wide in zip(cells, widths, strict=False))
    return f"{left}  {cells[-1]}"


def bench(model: str, folder: Path, seconds: float) -> dict[str, Run]:
    """Trains all of them; the results by their names, the sweep's best last."""
    until, gpu = time.monotonic() + seconds, torch.cuda.is_available()
    job = train_job.make(folder, model, gpu=gpu)
    steps, warm = (15, 3) if gpu else (9, 1)
    results: dict[str, Run] = {}
    for run in contenders(job, folder, steps, warm):
        order = {"job": asdict(job), "runs": [run]}
        for told in asked(order, folder, until - time.monotonic()):
            results[told["name"]] = told
    runs = list(grid(job))
    sweep = {"runs": runs, "steps": 3, "warm": 1, "left": 3 if gpu else 1, "longest": steps}
    told = list(asked({"job": asdict(job), "sweep": sweep}, folder, until - time.monotonic()))
    print(f"sweep: {len({one['name'] for one in told})} of {len(runs)} configurations in time, "
          f"{sum(one['error'] == 'OOM' for one in told)} without memory")  # fmt: skip
    final = [one for one in told if one["last"] and counts(one)]
    if final:
        best = max(final, key=lambda one: float(one["tokens_per_second"]))
        results[SWEEP] = best
        print(f"{SWEEP}: {best['name']}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="1b" if torch.cuda.is_available() else "tiny")
    parser.add_argument("--seconds", type=float, default=540)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="bench-train-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{given.model} on {device}, torch {torch.__version__}; everything in {folder}")
    results = bench(given.model, folder, given.seconds)
    (folder / "results.json").write_text(json.dumps(results, indent=1))
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()

"""What a LoRA merge costs beside `axolotl merge-lora` and beside a copy of the base.

Run by `make bench-merge`; SIZE is the base's billions of parameters. The base is a random
Llama in bfloat16 in shards, the adapter of rank 16 on every linear layer. Printed are wall
and CPU seconds, the peak of anonymous memory, and whether both merges hold the same bits.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
BIN = ROOT / ".venv" / "bin"
ENVIRON = {
    "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": os.environ["HOME"], "HF_HUB_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": "",
}  # fmt: skip
COPY = """
import os, shutil, sys
for folder, _, names in os.walk(shutil.copytree(*sys.argv[1:])):
    for name in names:
        with open(os.path.join(folder, name), "rb") as stream:
            os.fsync(stream.fileno())
"""


@dataclass(frozen=True)
class Cost:
    wall: float
    cpu: float
    anonymous: float  # MB


def measure(argv: list[str], folder: Path) -> Cost:
    """Runs a command; memory is sampled every 20 ms."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    with (folder / "log").open("w") as log:
        child = subprocess.Popen(argv, cwd=folder, env=ENVIRON, stdout=log, stderr=log)
        peak = 0
        while child.poll() is None:
            peak = max(peak, anonymous(child.pid))
            time.sleep(0.02)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if child.returncode:
        sys.exit((folder / "log").read_text()[-3000:])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(wall, cpu, peak / 1024)


def anonymous(pid: int) -> int:
    """RssAnon of a process, in KiB; 0 where it has just ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("RssAnon")), 0)


def make(folder: Path, billions: float) -> None:
    """A random base and a random adapter for it."""
    import peft
    import transformers

    from envtune.engine import embedded

    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=2048, intermediate_size=5632, num_attention_heads=16,
        num_key_value_heads=8, tie_word_embeddings=False,
        num_hidden_layers=max(1, round((billions * 1e9 - 2 * 32000 * 2048) / 47.2e6)),
    )  # fmt: skip
    torch.set_default_dtype(torch.bfloat16)
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder / "base", max_shard_size=f"{billions / 2}GB")
    embedded.make_tokenizer(folder / "base")
    lora = peft.LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    adapted = peft.get_peft_model(model, lora)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    adapted.save_pretrained(folder / "adapter")
    embedded.make_tokenizer(folder / "adapter")


def commands(folder: Path) -> dict[str, list[str]]:
    """The three ways, each with what it reads written down."""
    inputs = {"base": str(folder / "base"), "adapter": str(folder / "adapter")}
    order, config = folder / "order.json", folder / "axolotl.yaml"
    order.write_text(json.dumps({**inputs, "target": str(folder / "ours")}))
    settings = {
        "base_model": inputs["base"], "lora_model_dir": inputs["adapter"], "adapter": "lora",
        "output_dir": str(folder / "theirs"), "lora_r": 16, "lora_alpha": 32,
        "lora_target_linear": True, "datasets": [{"path": "none", "type": "alpaca"}],
        "micro_batch_size": 1, "gradient_accumulation_steps": 1, "learning_rate": 1e-4,
    }  # fmt: skip
    config.write_text(json.dumps(settings))  # JSON is YAML
    python = str(BIN / "python")
    return {
        "copy with fsync": [python, "-c", COPY, inputs["base"], str(folder / "copy")],
        "axolotl merge-lora": [str(BIN / "axolotl"), "merge-lora", str(config)],
        "envtune.engine.export.merge": [python, "-m", "envtune.engine.export.merge", str(order)],
    }


def differing(ours: Path, theirs: Path) -> tuple[int, int]:
    """How many tensors differ in any bit, and how many there are."""
    different = total = 0
    for path in sorted(ours.glob("*.safetensors")):
        with safe_open(path, "pt") as a, safe_open(theirs / path.name, "pt") as b:
            for name in a.keys():  # noqa: SIM118  # no mapping
                total += 1
                different += not torch.equal(a.get_tensor(name), b.get_tensor(name))
    return different, total


def largest(folder: Path) -> float:
    """The bytes of the largest tensor, in MB."""
    sizes = []
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as shard:
            sizes += [shard.get_tensor(name).nbytes for name in shard.keys()]  # noqa: SIM118
    return max(sizes) / 2**20


def main() -> None:
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), float(sys.argv[3]))
        return
    billions = float(sys.argv[1]) if len(sys.argv) > 1 else 0.4
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        folder = Path(name)
        measure([sys.executable, __file__, "make", name, str(billions)], folder)
        costs = {}
        print(f"{'command':24}{'wall s':>8}{'CPU s':>8}{'RssAnon MB':>12}{'x axolotl CPU':>15}")
        for title, argv in commands(folder).items():
            cost = costs[title] = measure(argv, folder)
            theirs = costs.get("axolotl merge-lora")
            ratio = f"{cost.cpu / theirs.cpu:15.2f}" if theirs else ""
            print(f"{title:24}{cost.wall:8.1f}{cost.cpu:8.1f}{cost.anonymous:12.0f}{ratio}")
            sys.stdout.flush()
        different, total = differing(folder / "ours", folder / "theirs" / "merged")
        bound = 350 + 3 * largest(folder / "base")
        print(
            f"{different} of {total} tensors differ; the bound on anonymous memory {bound:.0f} MB"
        )


if __name__ == "__main__":
    main()

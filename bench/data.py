"""What preparing rows costs beside `axolotl preprocess` and beside the bare tokenizers.

Run by `make bench-data`; ROWS are the counts to take, 20000 where none is named. The rows are of
alpaca's size: GSM8K's recombined where ../shared/data has it, else made ones. The tokenizers are
a byte-level one of 50k tokens, trained here, and the 32k one of ../shared/data. Printed are CPU
seconds of process trees, rows and tokens a CPU second, the peak of resident memory of the first
process, the ratios, and whether both made the same ids and labels in the same order. `first`: a
tokenizer that was not loaded before, which transformers then reads once.
"""

import functools
import json
import os
import random
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"
BATCH = 4000
LENGTH = 512
# Above so many rows the slow ways, Axolotl's among them, would take a quarter of an hour.
THEIRS = 500_000
# One step of training as envtune has it on a CPU.
STEP = {
    "max_steps": 1, "adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True,
    "plugins": ["envtune.engine.plugin.EnvtunePlugin"], "sequence_len": 2048,
    "lora_mlp_kernel": False, "lora_qkv_kernel": False, "lora_o_kernel": False,
    "lora_embedding_kernel": False, "save_strategy": "no",
}  # fmt: skip
ENVIRON = {
    "PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "PYTHONPATH": str(ROOT),
    "HF_HUB_OFFLINE": "1",
    "AXOLOTL_DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false",
    "FASTOKENS_BPE_THREADS": "1", "OMP_NUM_THREADS": "1",
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    cpu: float
    wall: float
    memory: float  # MiB


def measure(*argv: object, **environ: str) -> Cost:
    """Runs a command to its end."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(
            [sys.executable, *map(str, argv)], env=ENVIRON | environ, stdout=log, stderr=log
        )
        memory = 0.0
        while not (ended := os.wait4(child.pid, os.WNOHANG))[0]:
            memory = max(memory, peak(child.pid))
            time.sleep(0.02)
        _, status, used = ended
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            log.seek(0)
            sys.exit(log.read().decode()[-3000:])
    wall = time.perf_counter() - start
    return Cost(used.ru_utime + used.ru_stime, wall, memory)


def peak(pid: int) -> float:
    """The most that a process has held, in MiB: not what whoever starts it holds, as with wait4."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(li.split()[1]) / 1024 for li in status.splitlines() if "VmHWM" in li), 0.0)


# --- what is measured -----------------------------------------------------------------------


def main(counts: list[int]) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-data-") as name:
        folder = Path(name)
        for kind, tokenizer in tokenizers(folder):
            for count in counts:
                compare(folder, kind, tokenizer, count)
        first_step(folder, min(counts))


def first_step(folder: Path, count: int) -> None:
    """A training of one step of the embedded model, on raw rows and on prepared ones."""
    measure("-m", "envtune.engine.embedded", folder / "embedded")
    data = write_rows(folder / f"{count}.jsonl", count)
    tokenizer = folder / "embedded" / "tiny-llama"
    config = write_config(folder / "step.json", tokenizer, data, folder, **STEP)
    run = folder / "run"
    for name in ("data", "config"):  # as a run has them
        (run / name).mkdir(parents=True)
    raw = measure("-m", "axolotl.cli.train", config, ENVTUNE_RUN_DIR=str(run))
    ours = measure(__file__, "prepare", config, folder / "stepped", folder / "cache-step", run)
    prepared = measure("-m", "axolotl.cli.train", config, ENVTUNE_RUN_DIR=str(run))
    print(f"one step of the embedded model on {count} rows")
    print(f"  raw rows {raw.cpu:.2f} CPU-s {raw.wall:.1f} s {raw.memory:.0f} MiB")
    print(
        f"  prepared {prepared.cpu:.2f} CPU-s {prepared.wall:.1f} s {prepared.memory:.0f} MiB,"
        f" after {ours.cpu:.2f} CPU-s: {prepared.cpu / raw.cpu:.2f} of raw"
    )


def compare(folder: Path, kind: str, tokenizer: Path, count: int) -> None:
    data = write_rows(folder / f"{count}.jsonl", count)
    config = write_config(folder / f"{kind}-{count}.json", tokenizer, data, folder)
    caches = folder / f"cache-{kind}-{count}"
    ours = functools.partial(measure, __file__, "prepare", config)
    bare = functools.partial(measure, __file__, "bare")
    costs = {"first": ours(folder / "first", caches), "prepared": ours(folder / "ours", caches)}
    costs["by two processes"] = ours(folder / "two", caches, folder / "two-run", 2)
    costs["bare fastokens"] = bare("fastokens", config, data)
    if count <= THEIRS:
        alone = measure(__file__, "slow", config, folder / "slow", caches)
        costs["by tokenizers alone"] = alone
        costs["bare tokenizers"] = bare("tokenizers", config, data)
        costs["axolotl preprocess"] = measure("-m", "axolotl.cli.preprocess", config)
    tokens, what = same(folder)
    print(f"{kind}, {count} rows, {tokens} tokens, {what}")
    theirs = costs.get("axolotl preprocess")
    for label, cost in costs.items():
        print(
            f"  {label:20} {cost.cpu:8.2f} CPU-s {cost.wall:8.2f} s {cost.memory:6.0f} MiB"
            f" {count / cost.cpu:10.0f} rows {tokens / cost.cpu:10.0f} tokens a CPU-s"
            + (f"   1/{theirs.cpu / cost.cpu:.1f}" if theirs else "")
        )
    for path in ("first", "ours", "slow", "theirs", "two", "two-run", "ours-run", "first-run"):
        shutil.rmtree(folder / path, ignore_errors=True)


def same(folder: Path) -> tuple[int, str]:
    """Compares what was prepared. Returns the tokens, and what was compared."""
    from datasets import load_from_disk

    mine = load_from_disk(str(next((folder / "ours").glob("*/train"))))
    theirs = [path.parent for path in (folder / "theirs").glob("*/state.json")]
    for path in (*folder.glob("slow/*/train"), *folder.glob("two/*/train"), *theirs):
        other = load_from_disk(str(path))
        for column in ("input_ids", "labels", "attention_mask"):
            theirs_ = other.data.column(column).cast(mine.data.column(column).type)
            if not mine.data.column(column).equals(theirs_):
                sys.exit(f"{column} differ from {path}")
    tokens = sum(len(piece.flatten()) for piece in mine.data.column("input_ids").chunks)
    return tokens, "ids, labels and order as Axolotl's" if theirs else "not compared with Axolotl's"


# --- what is measured, in processes of its own ----------------------------------------------


def prepare(config: str, out: str, caches: str, run: str = "", workers: str = "1") -> None:
    """As a run's stage does it, from the files on."""
    from envtune.engine.data import prepare
    from envtune.settings.own import OWN
    from envtune.settings.own.preparation import FILTERS, MIXTURE

    settings = json.loads(Path(config).read_text())
    (item,) = settings["datasets"]
    run = run or f"{out}-run"
    (Path(run) / "data").mkdir(parents=True, exist_ok=True)
    order = {
        "config": {**settings, "dataset_num_proc": int(workers)},
        "tokenizer": settings["base_model"],
        "sets": {"train": [{"item": item, "files": [item["path"]], "untyped": False}]},
        "settings": {name: OWN[name].default for name in (*FILTERS, *MIXTURE)},
        "asked": False, "save": False, "drops": False, "beyond": "", "content": out, "ray": None,
        "cores": 1, "run": run, "caches": caches, "out": out, "result": f"{run}/result.json",
    }  # fmt: skip
    path = Path(run) / "order.json"
    path.write_text(json.dumps(order))
    sys.argv = ["prepare", str(path)]
    prepare.main()


def slow(config: str, out: str, caches: str) -> None:
    """The same by Hugging Face's library alone, which no setting asks for."""
    from envtune.data import sets
    from envtune.engine.data import tokenised

    settings = json.loads(Path(config).read_text())
    (item,) = settings["datasets"]
    read = functools.partial(sets.read, sets.of(item, [item["path"]], untyped=False))
    model = Path(settings["base_model"])
    wanted = tokenised.Wanted(settings, model, {"train": [read]}, "", Path(caches), "asked for")
    tokenised.prepare(wanted, Path(out))


def batches(path: Path, item: dict[str, Any]) -> Iterator[Any]:
    import orjson

    from envtune.data.batches import Batch

    rows: list[Any] = []
    begin = 1
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            rows.append(orjson.loads(line))
            if len(rows) == BATCH:
                yield item, Batch(path.name, range(begin, number + 1), rows)
                rows, begin = [], number + 1
    yield item, Batch(path.name, range(begin, begin + len(rows)), rows)


def bare(library: str, config: str, data: str) -> None:
    """The same texts by a tokenizer alone, with nothing read, masked or written but these."""
    from envtune.engine.data.backend import Backend
    from envtune.engine.data.tokenizer import load
    from envtune.engine.data.types import instruct

    settings = json.loads(Path(config).read_text())
    cache = next(Path(config).parent.glob(f"cache-{Path(config).stem}"))
    loaded = load(Path(settings["base_model"]), settings, cache)
    assert loaded is not None
    backend = Backend(loaded, None if library == "fastokens" else "asked for")
    layout = instruct.layout("alpaca")
    assert layout is not None
    for _, batch in batches(Path(data), {}):
        backend.encode([text for row in batch.rows for text in layout.texts(row)], special=True)


# --- what is made for it --------------------------------------------------------------------


def tokenizers(folder: Path) -> Iterator[tuple[str, Path]]:
    yield "byte-level", byte_level(folder / "byte-level")
    if (SHARED / "llama-tokenizer").is_dir():
        made = folder / "sentencepiece"
        made.mkdir()
        for path in (SHARED / "llama-tokenizer").iterdir():
            (made / path.name).write_bytes(path.read_bytes())
        yield "sentencepiece", made


def byte_level(folder: Path) -> Path:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    pattern = (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )
    made = Tokenizer(models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    sources = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    texts = [path.read_text(errors="ignore") for path in sources] + [
        f"{row['instruction']}\n{row['output']}" for row in some_rows(20000)
    ]
    trainer = trainers.BpeTrainer(
        vocab_size=50000, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(texts, trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


def some_rows(count: int) -> Iterator[dict[str, str]]:
    dice = random.Random(3)
    pairs = [("", "")]
    if (SHARED / "gsm8k_train.jsonl").exists():
        lines = (SHARED / "gsm8k_train.jsonl").read_text().splitlines()
        pairs = [(row["question"], row["answer"]) for row in map(json.loads, lines)]
    else:
        from tests import rows_made

        pairs = [
            (" ".join(rows_made.text(dice) for _ in range(2)), rows_made.text(dice) * 2)
            for _ in range(8000)
        ]
    for number in range(count):
        row = {"instruction": dice.choice(pairs)[0], "output": dice.choice(pairs)[1]}
        more = {"input": dice.choice(pairs)[0][:80]} if not number % 3 else {"input": ""}
        yield row | more


def write_rows(path: Path, count: int) -> Path:
    if not path.exists():
        with path.open("w") as stream:
            stream.writelines(json.dumps(row) + "\n" for row in some_rows(count))
    return path


def write_config(path: Path, tokenizer: Path, data: Path, folder: Path, **more: Any) -> Path:
    config = {
        "base_model": str(tokenizer), "output_dir": str(folder / "out"), "seed": 42,
        "datasets": [{"path": str(data), "ds_type": "json", "type": "alpaca"}],
        "dataset_prepared_path": str(folder / "theirs"), "dataset_num_proc": 1,
        "sequence_len": LENGTH, "num_epochs": 1, "learning_rate": 1e-4,
        "micro_batch_size": 1, "gradient_accumulation_steps": 1,
        "optimizer": "adamw_torch", "lr_scheduler": "cosine", "bf16": False, "fp16": False,
        **more,
    }  # fmt: skip
    path.write_text(json.dumps(config))
    return path


if __name__ == "__main__":
    if sys.argv[1:2] == ["prepare"]:
        prepare(*sys.argv[2:])
    elif sys.argv[1:2] == ["slow"]:
        slow(*sys.argv[2:])
    elif sys.argv[1:2] == ["bare"]:
        bare(*sys.argv[2:])
    else:
        main([int(word) for word in sys.argv[1:]] or [20_000])

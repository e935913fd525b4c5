"""The export as a stage of a run: what it leaves, and what a kill or a lost base leaves."""

import shutil
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.harness import Entrypoint, kill, read

PROMPT = torch.arange(5, 45).unsqueeze(0)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(PROMPT).logits
    return found


def tuned(base: Path, adapter: Path) -> torch.Tensor:
    return logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter))


def test_a_plain_adapter_is_served_as_it_is(lora: Path) -> None:
    stage = read(lora / "run.json")["stages"]["export"]
    assert (stage["outcome"], stage["kind"], stage["max_lora_rank"]) == ("done", "plain", 16)
    assert "the adapter fits its base" in read(lora / ".complete")["checks"]
    for name in ("adapter_model.safetensors", "adapter_config.json", "tokenizer.json"):
        assert (lora / "serving/adapter" / name).samefile(lora / "adapter" / name)


def test_a_model_that_was_trained_whole_has_nothing_to_export(full: Path) -> None:
    assert not (full / "serving").exists()
    assert "export" not in read(full / "run.json")["stages"]


def test_what_vllm_refuses_is_merged_however_often_the_export_is_killed_or_loses_its_base(
    entrypoint: Entrypoint, embedded: Path
) -> None:
    """Killed in the merge; then without the base; then with it. Nothing trains again."""
    base = entrypoint.folder / "base"
    shutil.copytree(embedded / "tiny-llama", base)
    dora = {"AXOLOTL_PEFT_USE_DORA": "true", "AXOLOTL_MAX_STEPS": "3"}
    start = entrypoint.start(AXOLOTL_BASE_MODEL=str(base), **dora)
    start.until(lambda: (start.only_run() / "config" / "merge.json").exists())
    for pid in start.left_over():
        kill(pid)
    assert start.wait().code == 137
    run = start.only_run()
    assert not (run / ".complete").exists()
    steps = (run / "metrics.jsonl").read_text()

    weights = base / "model.safetensors"
    weights.rename(base / "away")
    lost = entrypoint.run("envtune", "run", "--folder", str(run))
    assert lost.code == 4
    assert "train: done before" in lost.err
    assert "export failed: export: base: " in lost.err
    (base / "away").rename(weights)

    done = entrypoint.run("envtune", "run", "--folder", str(run))
    assert done.code == 0, done.err
    assert (run / "metrics.jsonl").read_text() == steps
    stage = read(run / "run.json")["stages"]["export"]
    assert stage["kind"] == "merged"
    assert "DoRA" in stage["reason"]
    made = logits(AutoModelForCausalLM.from_pretrained(run / "merged"))
    torch.testing.assert_close(made, tuned(base, run / "adapter"), rtol=0, atol=1e-5)

"""The quantise stage with a real llmcompressor: what it leaves, refuses, and what a kill leaves."""

import json
import math
import random
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from envtune.engine.quantise.quantise import Order, read_rows
from tests.harness import ROOT, Entrypoint, Result, clean_environ, execute, read
from tests.test_vllm import VLLM, serving

PYTHON = ROOT / ".venv-quantise" / "bin" / "python"
pytestmark = pytest.mark.skipif(
    not PYTHON.exists(), reason="there is no quantise environment; `make setup-quantise` makes it"
)
SAMPLES = 24
OUTPUTS = ("lm_head.weight", "embed_out.weight")


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str]) -> Path:
    """The folder of a LoRA run that was quantised."""
    more = {"SFT_QUANTISE": "w4a16", "SFT_CALIBRATION_SAMPLES": str(SAMPLES)}
    return Entrypoint(tmp_path_factory.mktemp("quantised"), settings | more).train()


def order(run: Path, target: Path, **changes: Any) -> Path:
    """An order like that of the run, for another target."""
    told = {**read(run / "config" / "quantise.json"), "target": str(target), **changes}
    path = target.with_suffix(".json")
    path.write_text(json.dumps(told))
    return path


def command(path: Path) -> list[str]:
    return [str(PYTHON), "-m", "envtune.engine.quantise.quantise", str(path)]


def carry_out(path: Path) -> Result:
    return execute(command(path), path.parent, clean_environ())


def test_the_adapters_model_is_merged_and_quantised(quantised: Path) -> None:
    made, merged = quantised / "merged_awq", quantised / "merged"
    config = read(made / "config.json")["quantization_config"]
    weights = config["config_groups"]["group_0"]["weights"]
    assert (config["format"], config["ignore"]) == ("pack-quantized", ["lm_head"])
    assert [weights[key] for key in ("num_bits", "group_size", "symmetric")] == [4, 128, False]
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (made / name).read_bytes() == (merged / name).read_bytes()
    before, after = (load_file(folder / "model.safetensors") for folder in (merged, made))
    assert torch.equal(before["lm_head.weight"], after["lm_head.weight"])
    assert {path.stat().st_mode & 0o777 for path in made.iterdir()} == {0o644}
    assert not list(quantised.glob(".merged_awq*"))


def test_the_record_says_what_it_cost(quantised: Path) -> None:
    stage = read(quantised / "run.json")["stages"]["quantise"]
    told = ("outcome", "artifact", "child_exit", "scheme", "method", "samples")
    assert [stage[k] for k in told] == ["done", "merged_awq", 0, "w4a16", "awq", SAMPLES]
    assert stage["bytes_after"] == (quantised / "merged_awq/model.safetensors").stat().st_size
    assert stage["bytes_after"] < stage["bytes_before"] / 3
    assert stage["perplexity_before"] < stage["perplexity_after"] * 1.1
    assert stage["perplexity_after"] < stage["perplexity_before"] * 1.2
    assert set(stage["checks"]) < set(read(quantised / ".complete")["checks"])


def test_floats_of_8_bits_are_the_weights_and_a_killed_start_is_repeated(
    quantised: Path, tmp_path: Path, dice: random.Random
) -> None:
    target = tmp_path / "merged_fp8"
    path = order(quantised, target, scheme="fp8")
    process = subprocess.Popen(
        command(path), cwd=tmp_path, env=clean_environ(), stderr=subprocess.DEVNULL
    )
    try:
        process.wait(dice.uniform(1, 12))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not target.exists() or (target / "quantise.json").exists()
    done = carry_out(path)
    assert done.code == 0, done.err[-3000:]
    assert not list(tmp_path.glob(".merged_fp8*"))
    assert_rounded(quantised / "merged", target, "model.layers.0.mlp.gate_proj.weight", 2**-4)
    again = carry_out(path)
    assert "was made before" in again.out


def assert_rounded(model: Path, made: Path, name: str, error: float) -> None:
    """That a layer times its scales is the model's, up to a share of the largest weight."""
    before, after = (load_file(folder / "model.safetensors") for folder in (model, made))
    restored = after[name].float() * after[f"{name}_scale"].float()
    assert after[name].dtype in (torch.float8_e4m3fn, torch.int8)
    assert (restored - before[name]).abs().max() < error * before[name].abs().max()


def test_integers_of_8_bits_are_the_weights(quantised: Path, tmp_path: Path) -> None:
    target = tmp_path / "merged_w8a8"
    done = carry_out(order(quantised, target, scheme="w8a8"))
    assert done.code == 0, done.err[-3000:]
    told = read(target / "quantise.json")["made"]
    assert told["method"] == "smoothquant and gptq"
    assert told["perplexity_after"] < told["perplexity_before"] * 1.05
    # SmoothQuant leaves the layers alone that no norm feeds.
    assert_rounded(quantised / "merged", target, "model.layers.0.mlp.down_proj.weight", 0.02)


def test_an_architecture_that_awq_does_not_know_is_quantised_by_gptq(
    quantised: Path, embedded: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, GPTNeoXConfig, GPTNeoXForCausalLM

    shape = {"hidden_size": 128, "intermediate_size": 192, "num_attention_heads": 4}
    config = GPTNeoXConfig(vocab_size=512, num_hidden_layers=2, **shape)
    GPTNeoXForCausalLM(config).save_pretrained(tmp_path / "neox")
    AutoTokenizer.from_pretrained(embedded / "tiny-llama").save_pretrained(tmp_path / "neox")
    target = tmp_path / "merged_awq"
    done = carry_out(order(quantised, target, model=str(tmp_path / "neox")))
    assert done.code == 0, done.err[-3000:]
    told = read(target / "quantise.json")["made"]
    assert (told["method"], told["group_size"]) == ("gptq", 64)
    before, after = (load_file(f / "model.safetensors") for f in (tmp_path / "neox", target))
    [output] = [name for name in before if "layers" not in name and name.endswith(OUTPUTS)]
    assert torch.equal(before[output], after[output])


def test_a_tied_output_stays_tied(quantised: Path, tmp_path: Path) -> None:
    model = changed(quantised, tmp_path, lambda tensors: tensors.pop("lm_head.weight"))
    config = {**read(model / "config.json"), "tie_word_embeddings": True}
    (model / "config.json").write_text(json.dumps(config))
    target = tmp_path / "merged_fp8"
    done = carry_out(order(quantised, target, scheme="fp8", model=str(model)))
    assert done.code == 0, done.err[-3000:]
    assert read(target / "config.json")["tie_word_embeddings"] is True
    assert "lm_head.weight" not in load_file(target / "model.safetensors")


def changed(run: Path, folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    """A copy of the run's merged model with other weights."""
    model = folder / "model"
    shutil.copytree(run / "merged", model)
    tensors = load_file(model / "model.safetensors")
    change(tensors)
    save_file(tensors, model / "model.safetensors", {"format": "pt"})
    return model


def outliers(tensors: dict[str, torch.Tensor]) -> None:
    """Weights that nothing ever reaches, so large that 8 bits leave nothing of the others."""
    for name, tensor in tensors.items():
        if name.endswith(("gate_proj.weight", "v_proj.weight")):
            tensor[::32] = 0
        elif name.endswith(("down_proj.weight", "o_proj.weight")):
            tensor[:, ::32] = 1e9


def not_a_number(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = math.nan


@pytest.mark.parametrize("change", [outliers, not_a_number])
def test_a_model_that_does_not_survive_is_refused(
    change: Callable[[dict[str, torch.Tensor]], None], quantised: Path, tmp_path: Path
) -> None:
    target = tmp_path / "merged_fp8"
    model = changed(quantised, tmp_path, change)
    done = carry_out(order(quantised, target, scheme="fp8", model=str(model)))
    assert done.code == 6, done.err[-3000:]
    assert "SFT_QUANTISE: the perplexity of rows that were trained was" in done.err.splitlines()[-1]
    assert not target.exists()


def test_a_model_trained_whole_is_quantised_once_there_is_an_environment(
    entrypoint: Entrypoint,
) -> None:
    """Without the environment the training is kept, and the next start goes on with it."""
    venv = entrypoint.folder / "venv"
    venv.symlink_to(PYTHON.parents[1])
    more = {"AXOLOTL_ADAPTER": "null", "AXOLOTL_MAX_STEPS": "2", "AXOLOTL_LEARNING_RATE": "1e-3",
            "SFT_QUANTISE": "fp8", "SFT_CALIBRATION_SAMPLES": "9999",
            "SFT_LLMCOMPRESSOR_VENV": "venv"}  # fmt: skip
    configured = entrypoint.run("envtune", "configure", **more)
    assert configured.code == 0, configured.err
    run = configured.out.strip()
    venv.unlink()
    lost = entrypoint.run("envtune", "run", "--folder", run)
    assert lost.code == 1, lost.err[-3000:]
    assert f"quantise failed: {venv} has no bin/python; `make setup-quantise`" in lost.err
    assert not (Path(run) / ".complete").exists()

    venv.symlink_to(PYTHON.parents[1])
    done = entrypoint.run("envtune", "run", "--folder", run)
    assert done.code == 0, done.err[-3000:]
    assert "train: done before" in done.err
    assert "quantise: fp8 by rounding, 301 rows, all there are; 2.9 MB -> 1.1 MB" in done.err
    assert (Path(run) / "merged_fp8" / "tokenizer.json").exists()
    assert not (Path(run) / "merged").exists()


@pytest.mark.skipif(
    not VLLM.exists(), reason="there is no serve environment; `make setup-serve` makes it"
)
def test_vllm_is_as_unsure_of_the_rows_as_the_record_says(quantised: Path, tmp_path: Path) -> None:
    rows = read_rows(Order.read(quantised / "config" / "quantise.json"))[:16]
    model = quantised / "merged_awq"
    if "avx512f" not in Path("/proc/cpuinfo").read_text():  # vLLM has no other kernel of 4 bits
        model = tmp_path / "merged_w8a8"
        done = carry_out(order(quantised, model, scheme="w8a8"))
        assert done.code == 0, done.err[-3000:]
    told = read(model / "quantise.json")["made"]
    with serving(model, {}, 1, tmp_path / "log", dtype="bfloat16") as url:
        loss = sum(surprise(url, row) for row in rows) / sum(len(row) - 1 for row in rows)
    recorded = told["perplexity_after"]
    print(
        f"{told['scheme']}: perplexity {recorded:.4g} in the record, {math.exp(loss):.4g} in vLLM"
    )
    assert abs(loss - math.log(recorded)) < 0.05


def surprise(url: str, row: list[int]) -> float:
    """The sum of the negative logarithms of a row's tokens, as a server sees them."""
    question = {"model": "base", "prompt": row, "max_tokens": 1, "prompt_logprobs": 0}
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(question).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        [choice] = json.load(answer)["choices"]
    places = zip(choice["prompt_logprobs"][1:], row[1:], strict=True)
    return -sum(float(place[str(token)]["logprob"]) for place, token in places)

"""A merged model is the one that PEFT makes, bit for bit, however often the merge is killed."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file

from envtune.engine import merge as merging
from tests.harness import Result, clean_environ, read

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Kind:
    """An adapter's configuration, the base that it is for, and its size after adding tokens."""

    lora: dict[str, Any]
    base: str = "bfloat16"
    vocabulary: int | None = None
    untied: bool = False
    tied: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "plain": Kind({"r": 8, "lora_alpha": 16, "target_modules": LINEAR}),
    "plain, in float16": Kind({"r": 8, "lora_alpha": 13, "target_modules": LINEAR}, "float16"),
    "plain, in float32": Kind({"r": 8, "lora_alpha": 13, "target_modules": LINEAR}, "float32"),
    "rsLoRA": Kind({"r": 8, "lora_alpha": 16, "target_modules": LINEAR, "use_rslora": True}),
    "patterns": Kind({"r": 8, "target_modules": LINEAR, "rank_pattern": {"q_proj": 4, r"layers\.1\..*v_proj": 2}, "alpha_pattern": {"up_proj": 3, "q_proj": 5}}),
    "DoRA": Kind({"r": 8, "target_modules": LINEAR, "use_dora": True}),
    "DoRA in float16": Kind({"r": 8, "target_modules": LINEAR, "use_dora": True}, "float16"),
    "embeddings": Kind({"r": 8, "target_modules": ["embed_tokens", "lm_head", "q_proj"], "lora_alpha": 11}),
    "embeddings, DoRA": Kind({"r": 8, "target_modules": ["embed_tokens", "lm_head"], "use_dora": True}),
    "modules to save": Kind({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head", "norm"]}),
    "trainable tokens": Kind({"target_modules": ["q_proj"], "trainable_token_indices": [3, 500, 17]}),
    "trainable tokens by layer": Kind({"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [3, 5], "lm_head": [7]}}),
    "added tokens": Kind({"target_modules": ["q_proj"]}, vocabulary=531),
    "added tokens, trained": Kind({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, vocabulary=531),
    "added tokens, rows trained": Kind({"target_modules": ["q_proj"], "trainable_token_indices": [512, 520]}, vocabulary=531),
    "added tokens, embeddings": Kind({"target_modules": ["embed_tokens", "lm_head"]}, vocabulary=531),
    "biases": Kind({"target_modules": ["c_attn", "mlp.c_proj"], "bias": "all"}, "gpt2"),
    "biases of the targets": Kind({"target_modules": ["c_attn"], "bias": "lora_only"}, "gpt2"),
    "Conv1D": Kind({"r": 4, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True}, "gpt2"),
    "Conv1D, DoRA": Kind({"r": 4, "target_modules": ["c_attn", "c_proj", "wte"], "use_dora": True}, "gpt2", untied=True),
    "tied": Kind({"target_modules": LINEAR}, "tied"),
    "tied, trainable tokens": Kind({"target_modules": LINEAR, "trainable_token_indices": [3, 4]}, "tied"),
    "tied, added tokens": Kind({"target_modules": LINEAR}, "tied", vocabulary=531),
    "tied, input alone": Kind({"target_modules": ["embed_tokens"]}, "tied", untied=True),
    "tied, output alone": Kind({"target_modules": ["lm_head"]}, "tied", untied=True),
    "tied, both saved": Kind({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}, "tied", untied=True),
    "tied, input saved": Kind({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]}, "tied", vocabulary=531, untied=True),
    "tied, saved as one": Kind({"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, "tied"),
}  # fmt: skip


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    """The embedded model in each dtype and in shards, a tied one, and a GPT-2."""
    folder = tmp_path_factory.mktemp("bases")
    source = embedded / "tiny-llama"
    model = transformers.AutoModelForCausalLM.from_pretrained(source)
    for name in ("float32", "float16", "bfloat16"):
        model.to(getattr(torch, name)).save_pretrained(folder / name, max_shard_size="300KB")
    config = transformers.AutoConfig.from_pretrained(source, tie_word_embeddings=True)
    torch.manual_seed(1)
    tied = transformers.AutoModelForCausalLM.from_config(config)
    tied.save_pretrained(folder / "tied")
    small = transformers.GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=2, n_positions=32)
    transformers.GPT2LMHeadModel(small).to(torch.bfloat16).save_pretrained(folder / "gpt2")
    for name in ("float32", "float16", "bfloat16", "tied", "gpt2"):
        for path in source.glob("*token*"):
            shutil.copy(path, folder / name)
        shutil.copy(source / "chat_template.jinja", folder / name)
    return folder


def loaded(folder: Path, kind: Kind) -> Any:
    """The base as training would have it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    if kind.vocabulary:
        torch.manual_seed(7)
        model.resize_token_embeddings(kind.vocabulary, mean_resizing=False)
    return model


def trained(base: Path, kind: Kind, folder: Path) -> Path:
    """An adapter with random weights everywhere, as PEFT saves it."""
    model = peft.get_peft_model(loaded(base, kind), peft.LoraConfig(**kind.lora))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                scale = 0.1 if "lora_magnitude" in name else 1.0
                parameter.add_(torch.randn_like(parameter), alpha=scale)
    model.save_pretrained(folder)
    return folder


def by_peft(base: Path, kind: Kind, adapter: Path, folder: Path) -> dict[str, torch.Tensor]:
    model = loaded(base, kind)
    if kind.untied:  # PEFT itself would merge both sides into the one tensor
        model.config.tie_word_embeddings = False
        head = model.get_output_embeddings()
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
    peft.PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(folder)
    return weights(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype, name
        assert torch.equal(ours[name], tensor), name


@pytest.mark.parametrize("name", KINDS)
def test_a_merge_is_what_peft_makes(bases: Path, tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    base = bases / kind.base
    adapter = trained(base, kind, tmp_path / "adapter")
    merging.merge(base, adapter, tmp_path / "merged")
    same(weights(tmp_path / "merged"), by_peft(base, kind, adapter, tmp_path / "theirs"))


@pytest.fixture(scope="module")
def plain(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base in shards, a plain adapter for it with a tokenizer of its own, and the merge."""
    folder = tmp_path_factory.mktemp("plain")
    trained(bases / "bfloat16", KINDS["plain"], folder / "adapter")
    tokenizer = transformers.AutoTokenizer.from_pretrained(bases / "bfloat16")
    tokenizer.add_tokens(["<tool>"])
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").write_text("of the adapter")
    merging.merge(bases / "bfloat16", folder / "adapter", folder / "merged")
    return folder


def start(base: Path, adapter: Path, target: Path) -> subprocess.Popen[str]:
    target.parent.mkdir(exist_ok=True)
    order = target.with_name("order.json")
    order.write_text(
        json.dumps({"base": str(base), "adapter": str(adapter), "target": str(target)})
    )
    command = [sys.executable, "-m", "envtune.engine.merge", str(order)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=clean_environ(), stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=100)
    return Result(process.returncode, out, err)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_merge_killed_anywhere_ends_with_the_same_bytes(
    bases: Path, plain: Path, tmp_path: Path, dice: random.Random
) -> None:
    target = tmp_path / "merged"
    inputs = bases / "bfloat16", plain / "adapter", target
    kills = 0
    while kills < 10:
        process = start(*inputs)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("merge: 28 tensors")
        time.sleep(dice.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
        if target.exists():
            assert content(target) == content(plain / "merged")
            shutil.rmtree(target)
    assert finish(start(*inputs)).code == 0
    assert content(target) == content(plain / "merged")
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["merged"]


def test_a_start_keeps_the_files_that_an_earlier_one_made(
    bases: Path, plain: Path, tmp_path: Path
) -> None:
    aside = shutil.copytree(plain / "merged", tmp_path / ".merged.merging")
    whole, cut, lost, *_ = sorted(aside.glob("*.safetensors"))
    kept = whole.stat()
    cut.write_bytes(cut.read_bytes()[:-1])
    lost.unlink()
    merging.merge(bases / "bfloat16", plain / "adapter", tmp_path / "merged")
    assert content(tmp_path / "merged") == content(plain / "merged")
    now = (tmp_path / "merged" / whole.name).stat()
    assert (now.st_ino, now.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)


def test_a_start_keeps_nothing_of_another_adapter(bases: Path, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain / "merged", tmp_path / ".merged.merging")
    shutil.copytree(plain / "merged", tmp_path / "merged")
    kind = KINDS["rsLoRA"]
    adapter = trained(bases / kind.base, kind, tmp_path / "adapter")
    merging.merge(bases / kind.base, adapter, tmp_path / "merged")
    theirs = by_peft(bases / kind.base, kind, adapter, tmp_path / "theirs")
    same(weights(tmp_path / "merged"), theirs)


def test_a_second_start_finds_the_model_made(bases: Path, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain / "merged", tmp_path / "merged")
    made = (tmp_path / "merged").stat().st_ino
    result = finish(start(bases / "bfloat16", plain / "adapter", tmp_path / "merged"))
    assert result.code == 0
    assert "was made before" in result.out
    assert (tmp_path / "merged").stat().st_ino == made


def test_the_trained_tokenizer_and_its_template_go_along(bases: Path, plain: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(plain / "merged")
    assert tokenizer.convert_tokens_to_ids("<tool>") == 512
    assert tokenizer.chat_template == "{{ messages }}"
    assert not (plain / "merged" / "README.md").exists()
    given, made = bases / "bfloat16" / "generation_config.json", plain / "merged"
    assert (made / given.name).read_bytes() == given.read_bytes()


def test_the_bases_tokenizer_goes_along_where_the_adapter_has_none(
    bases: Path, tmp_path: Path
) -> None:
    adapter = trained(bases / "tied", KINDS["tied"], tmp_path / "adapter")
    merging.merge(bases / "tied", adapter, tmp_path / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "merged" / name).read_bytes() == (bases / "tied" / name).read_bytes()


@pytest.mark.parametrize("name", ["tied, input alone", "tied, output alone", "tied, input saved"])
def test_a_tied_model_trained_on_one_side_stays_what_was_trained(
    bases: Path, tmp_path: Path, name: str
) -> None:
    kind = KINDS[name]
    adapter = trained(bases / "tied", kind, tmp_path / "adapter")
    merging.merge(bases / "tied", adapter, tmp_path / "merged")
    model = peft.PeftModel.from_pretrained(loaded(bases / "tied", kind), adapter)
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    tokens = torch.arange(kind.vocabulary or 512).reshape(1, -1)
    with torch.no_grad():
        ours, theirs = merged(tokens).logits, model(tokens).logits
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()


def test_the_configuration_says_what_the_weights_are(bases: Path, tmp_path: Path) -> None:
    kind = KINDS["tied, input saved"]
    adapter = trained(bases / "tied", kind, tmp_path / "adapter")
    merging.merge(bases / "tied", adapter, tmp_path / "merged")
    given, made = read(bases / "tied" / "config.json"), read(tmp_path / "merged" / "config.json")
    assert made == given | {"vocab_size": 531, "tie_word_embeddings": False}


def test_the_index_names_every_tensor_where_the_base_had_it(bases: Path, plain: Path) -> None:
    name = "model.safetensors.index.json"
    assert read(plain / "merged" / name) == read(bases / "bfloat16" / name)
    assert len(list((plain / "merged").glob("*.safetensors"))) > 3

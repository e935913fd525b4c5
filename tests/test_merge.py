"""A merged model is the one that PEFT makes, bit for bit, however often the merge is killed."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from envtune.engine.export import lora
from envtune.engine.export import merge as merging
from envtune.engine.export.lora import Unmergeable
from tests.harness import Result, clean_environ, read

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Kind:
    """An adapter's configuration, the base that it is for, its rows after adding tokens;
    whether the adapter is stored in bfloat16, and whether the merge unties the embeddings."""

    lora: dict[str, Any]
    base: str = "bfloat16"
    vocabulary: int | None = None
    half: bool = False
    untied: bool = False


KINDS = {
    "plain": Kind({"r": 8, "lora_alpha": 16, "target_modules": LINEAR}),
    "plain, stored in half": Kind({"r": 8, "lora_alpha": 13, "target_modules": LINEAR}, half=True),
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
    "names of the files": Kind({"target_modules": ["q_proj", "linear_1"], "modules_to_save": ["lm_head"]}, "llava"),
    "names without a prefix": Kind({"target_modules": ["c_attn"], "modules_to_save": ["ln_f"]}, "bare-gpt2"),
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
    config = transformers.AutoConfig.from_pretrained(source, num_hidden_layers=2)
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name in ("float32", "float16", "bfloat16"):
        model.to(getattr(torch, name)).save_pretrained(folder / name, max_shard_size="200KB")
    config.tie_word_embeddings, config.dtype = True, torch.float32
    tied = transformers.AutoModelForCausalLM.from_config(config)
    tied.save_pretrained(folder / "tied")
    small = transformers.GPT2Config(vocab_size=128, n_embd=64, n_layer=2, n_head=2, n_positions=32)
    transformers.GPT2LMHeadModel(small).to(torch.bfloat16).save_pretrained(folder / "gpt2")
    (folder / "bare-gpt2").mkdir()
    tensors = load_file(folder / "gpt2" / "model.safetensors")
    bare = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    save_file(bare, folder / "bare-gpt2" / "model.safetensors", {"format": "pt"})
    shutil.copy(folder / "gpt2" / "config.json", folder / "bare-gpt2")
    save_llava(folder / "llava")
    for name in ("float32", "float16", "bfloat16", "tied", "gpt2"):
        for path in source.glob("*token*"):
            shutil.copy(path, folder / name)
        shutil.copy(source / "chat_template.jinja", folder / name)
    return folder


def save_llava(folder: Path) -> None:
    """A model of text and images, whose files keep the names of before transformers 5."""
    same = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    text = transformers.LlamaConfig(**same, vocab_size=128, num_hidden_layers=1)
    vision = transformers.CLIPVisionConfig(
        **same, num_hidden_layers=2, image_size=28, patch_size=14, projection_dim=32
    )
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=5)
    transformers.LlavaForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)


def loaded(folder: Path, kind: Kind) -> Any:
    """The base as training would have it."""
    name = read(folder / "config.json")["architectures"][0]
    model = getattr(transformers, name).from_pretrained(folder, dtype="auto")
    if kind.vocabulary:
        torch.manual_seed(7)
        model.resize_token_embeddings(kind.vocabulary, mean_resizing=False)
    return model


def trained(base: Path, kind: Kind, folder: Path) -> Path:
    """An adapter with random weights everywhere, as PEFT saves it."""
    model = peft.get_peft_model(loaded(base, kind), peft.LoraConfig(**kind.lora))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    model.save_pretrained(folder)
    if kind.vocabulary:
        shutil.copy(base / "tokenizer.json", folder)
    if kind.half:
        stored = folder / "adapter_model.safetensors"
        save_file({k: v.bfloat16() for k, v in load_file(stored).items()}, stored)
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
    ours, theirs = weights(tmp_path / "merged"), by_peft(base, kind, adapter, tmp_path / "theirs")
    if kind.base == "bare-gpt2":
        theirs = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
    same(ours, theirs)
    given = weights(base)
    assert any(not torch.equal(given.get(k, v.new_empty(0)), v) for k, v in ours.items())


def test_a_product_in_blocks_has_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole one is what PEFT makes. Blocks too narrow would go another way through the BLAS."""
    torch.manual_seed(5)
    tokens, hidden = 40_001, 512
    tensors = {"a": torch.randn(8, tokens), "b": torch.randn(hidden, 8), "m": torch.rand(hidden)}
    change = lora.Change(a="a", b="b", magnitude="m", embedding=True, scaling=0.3)
    tensor = torch.randn(tokens, hidden).bfloat16()
    assert tokens > lora._BLOCK
    made = lora.changed(tensor, change, tensors.__getitem__)
    monkeypatch.setattr(lora, "_BLOCK", tokens + 1)
    assert torch.equal(made, lora.changed(tensor, change, tensors.__getitem__))


@pytest.fixture(scope="module")
def plain(bases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base in shards, a plain adapter for it with a tokenizer of its own, and the merge."""
    folder = tmp_path_factory.mktemp("plain")
    trained(bases / "bfloat16", KINDS["plain"], folder / "adapter")
    tokenizer = transformers.AutoTokenizer.from_pretrained(bases / "bfloat16")
    tokenizer.model_max_length = 99
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
    command = [sys.executable, "-m", "envtune.engine.export.merge", str(order)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=clean_environ(), stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen[str]) -> Result:
    out, err = process.communicate(timeout=600)
    return Result(process.returncode, out, err)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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
    assert tokenizer.model_max_length == 99
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


def test_a_base_whose_one_file_is_named_by_an_index_keeps_it(bases: Path, tmp_path: Path) -> None:
    base = shutil.copytree(bases / "tied", tmp_path / "base")
    shard = "model-00001-of-00001.safetensors"
    names = load_file((base / "model.safetensors").rename(base / shard))
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    adapter = trained(base, KINDS["tied"], tmp_path / "adapter")
    merging.merge(base, adapter, tmp_path / "merged")
    assert read(tmp_path / "merged" / "model.safetensors.index.json")["weight_map"].keys() == (
        weights(tmp_path / "merged").keys()
    )
    transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged")


def configured(**settings: Any) -> Callable[[Path], None]:
    def edit(adapter: Path) -> None:
        path = adapter / "adapter_config.json"
        path.write_text(json.dumps(read(path) | settings))

    return edit


REFUSALS = {
    "lora_bias is set": configured(lora_bias=True),
    "init_lora_weights is pissa, which changed the base's weights": configured(init_lora_weights="pissa"),
    "a_key_of_tomorrow is set": configured(a_key_of_tomorrow=[1]),
    "down_proj are not all there": configured(use_dora=True),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSALS)
def test_what_cannot_be_merged_is_refused_before_anything_is_written(
    bases: Path, plain: Path, tmp_path: Path, message: str
) -> None:
    adapter = shutil.copytree(plain / "adapter", tmp_path / "adapter")
    REFUSALS[message](adapter)
    with pytest.raises(Unmergeable) as refusal:
        merging.merge(bases / "bfloat16", adapter, tmp_path / "merged")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("gptq", "is quantised (gptq), and not to bitsandbytes' 4 bits; merge into the original"),
        ("", "has no model.safetensors and no model.safetensors.index.json"),
    ],
)
def test_a_base_that_cannot_be_merged_into_is_refused(
    bases: Path, plain: Path, tmp_path: Path, kind: str, message: str
) -> None:
    base = shutil.copytree(bases / "bfloat16", tmp_path / "base")
    config = read(base / "config.json") | {"quantization_config": {"quant_method": kind}}
    (base / "config.json").write_text(json.dumps(config))
    if not kind:
        (base / "model.safetensors.index.json").unlink()
    with pytest.raises(Unmergeable, match=re.escape(message)):
        merging.merge(base, plain / "adapter", tmp_path / "merged")

"""An adapter of a base that bitsandbytes packed: merged into full precision, served as it is."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from envtune.engine.evaluate import answers
from envtune.engine.export import fourbit
from envtune.engine.export import merge as merging
from envtune.engine.export.export import RECORD, export
from envtune.engine.export.lora import Unmergeable
from envtune.engine.plugin import EnvtunePlugin
from envtune.errors import Refused
from tests.harness import clean_environ, read
from tests.test_export import edit, one_thread, order  # noqa: F401
from tests.test_merge import LINEAR, content, same, weights

# Before bitsandbytes is imported: it would look for a kernel on the Hub.
os.environ["HF_HUB_OFFLINE"] = "1"

TOKENS = torch.tensor([[1, 9, 40, 300, 7, 8, 2, 77]])


@dataclass(frozen=True)
class Packing:
    """How a base is stored: the type before it was packed, and what bitsandbytes is told."""

    quant_type: str
    double: bool
    dtype: torch.dtype = torch.bfloat16
    more: dict[str, Any] = field(default_factory=dict)


PACKINGS = {
    "nf4": Packing("nf4", double=False),
    "nf4, double": Packing("nf4", double=True),
    "nf4, double, from float32": Packing("nf4", double=True, dtype=torch.float32),
    "nf4, in bytes of bfloat16": Packing("nf4", double=True, more={"bnb_4bit_quant_storage": torch.bfloat16}),
    "nf4, the output layer too": Packing("nf4", double=True, more={"llm_int8_skip_modules": ["none"]}),
    "fp4": Packing("fp4", double=False),
    "fp4, double, from float16": Packing("fp4", double=True, dtype=torch.float16),
}  # fmt: skip
ADAPTERS: dict[str, dict[str, Any]] = {
    "plain": {"r": 8, "lora_alpha": 13, "target_modules": LINEAR},
    "two layers": {"r": 4, "target_modules": ["q_proj", "down_proj"], "use_rslora": True},
    "DoRA": {"r": 8, "target_modules": LINEAR, "use_dora": True},
    "trainable tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 500]},
    "embedding saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    """The embedded model packed in each way."""
    folder = tmp_path_factory.mktemp("bases")
    for name, packing in PACKINGS.items():
        told = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=packing.quant_type,
            bnb_4bit_use_double_quant=packing.double,
            bnb_4bit_compute_dtype=packing.dtype,
            **packing.more,
        )
        model = loaded(embedded / "tiny-llama", dtype=packing.dtype, quantization_config=told)
        model.save_pretrained(folder / name)
        AutoTokenizer.from_pretrained(embedded / "tiny-llama").save_pretrained(folder / name)
    scatter(shutil.copytree(folder / "nf4, double", folder / "scattered"))
    return folder


def scatter(folder: Path) -> None:
    """Takes what belongs together apart, into three files: one has nothing but maps."""
    tensors = load_file(folder / "model.safetensors")
    maps = sorted(name for name in tensors if name.endswith("quant_map"))
    others = sorted(tensors.keys() - set(maps))
    places = {}
    for number, names in enumerate((maps, others[::2], others[1::2]), 1):
        file = f"model-0000{number}-of-00003.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": 1}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


def loaded(folder: Path, **told: Any) -> Any:
    model = untouched(folder, **told)
    fourbit.keep_exact(model)
    return model


def untouched(folder: Path, **told: Any) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, **{"dtype": "auto", **told})


@pytest.fixture(params=[False, True], ids=["any processor", "with AVX512-BF16"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether bitsandbytes takes this processor for one with AVX512-BF16, whatever it is.

    Where that is not true its layers are packed for a kernel that is not there: what they
    answer is further off than a rounded product.
    """
    told: bool = request.param
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: told)
    return told


def trained(base: Path, folder: Path, config: dict[str, Any], vocabulary: int = 512) -> Any:
    """A model with an adapter of random weights, as QLoRA makes it; saved too."""
    model = loaded(base)
    torch.manual_seed(3)
    if vocabulary > 512:
        model.resize_token_embeddings(vocabulary, mean_resizing=False)
    tuned = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **config))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    tuned.save_pretrained(folder)
    return tuned


def by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    """In memory: transformers does not save a model that it dequantised."""
    model = peft.PeftModel.from_pretrained(loaded(base).dequantize(), adapter)
    return dict(model.merge_and_unload().state_dict())


@pytest.mark.parametrize(
    ("packing", "adapter"),
    [
        *((packing, "plain") for packing in (*PACKINGS, "scattered")),
        *(("nf4", adapter) for adapter in ADAPTERS if adapter != "plain"),
    ],
)
def test_a_merge_is_what_peft_makes_of_the_dequantised_base(
    bases: Path, tmp_path: Path, packing: str, adapter: str
) -> None:
    trained(bases / packing, tmp_path / "adapter", ADAPTERS[adapter])
    merging.merge(bases / packing, tmp_path / "adapter", tmp_path / "merged")
    same(weights(tmp_path / "merged"), by_peft(bases / packing, tmp_path / "adapter"))
    given = read(bases / packing / "config.json")
    del given["quantization_config"]
    assert read(tmp_path / "merged" / "config.json") == given


_WITHOUT = """
import sys
sys.modules["bitsandbytes"] = None
import torch, transformers
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
with torch.no_grad():
    torch.save(model(torch.load(sys.argv[2])).logits, sys.argv[3])
"""


@pytest.mark.usefixtures("processor")
def test_the_merged_model_needs_no_bitsandbytes_and_answers_as_the_trained_one(
    bases: Path, tmp_path: Path
) -> None:
    base = bases / "nf4, double, from float32"
    tuned = trained(base, tmp_path / "adapter", ADAPTERS["plain"])
    merging.merge(base, tmp_path / "adapter", tmp_path / "merged")
    torch.save(TOKENS, tmp_path / "tokens")
    places = [str(tmp_path / name) for name in ("merged", "tokens", "logits")]
    command = [sys.executable, "-c", _WITHOUT, *places]
    subprocess.run(command, check=True, env=clean_environ())
    with torch.no_grad():
        expected = tuned(TOKENS).logits
    assert (torch.load(tmp_path / "logits") - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_processor_with_avx512_bf16_answers_otherwise_where_nothing_is_done(
    bases: Path, processor: bool
) -> None:
    folder = bases / "nf4, double, from float32"
    with torch.no_grad():
        expected = loaded(folder).dequantize()(TOKENS).logits
        found = untouched(folder)(TOKENS).logits
    assert ((found - expected).abs().max() > 1e-3 * expected.abs().max()) == processor


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("adapter", ["plain", "DoRA"])
@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_parity_expects_of_a_server_what_the_merged_model_answers(
    bases: Path, tmp_path: Path, adapter: str, compute: str
) -> None:
    """Computed in the server's type, whatever the packed base was to be computed in."""
    base = shutil.copytree(bases / "nf4, double, from float32", tmp_path / "base")
    told = read(base / "config.json")["quantization_config"]
    edit(base / "config.json", quantization_config=told | {"bnb_4bit_compute_dtype": compute})
    trained(base, tmp_path / "adapter", ADAPTERS[adapter])
    merging.merge(base, tmp_path / "adapter", tmp_path / "merged")
    asked = {"run": tmp_path, "device": "cpu", "dtype": "float32", "prompts": 2, "tokens": 8}
    packed = answers.answers({**asked, "base": base, "adapter": tmp_path / "adapter"})
    merged = answers.answers({**asked, "base": tmp_path / "merged", "adapter": None})
    for found, expected in zip(packed, merged, strict=True):
        assert found["tokens"] == expected["tokens"]
        assert found["logprobs"] == pytest.approx(expected["logprobs"], abs=1e-4)


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.train()(TOKENS, labels=TOKENS).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("adapter", ["plain", "DoRA"])
def test_a_model_that_was_evaluated_learns_as_before(
    bases: Path, tmp_path: Path, adapter: str
) -> None:
    trained(bases / "nf4", tmp_path / "adapter", ADAPTERS[adapter])
    evaluated, fresh = (
        peft.PeftModel.from_pretrained(
            untouched(bases / "nf4"), tmp_path / "adapter", is_trainable=True
        )
        for _ in range(2)
    )
    EnvtunePlugin().post_model_load(None, evaluated)
    with torch.no_grad():
        evaluated.eval()(TOKENS)
    same(gradients(evaluated), gradients(fresh))


def test_a_start_after_a_killed_one_ends_with_the_same_bytes(bases: Path, tmp_path: Path) -> None:
    trained(bases / "scattered", tmp_path / "adapter", ADAPTERS["plain"])
    merging.merge(bases / "scattered", tmp_path / "adapter", tmp_path / "whole")
    aside = shutil.copytree(tmp_path / "whole", tmp_path / ".merged.merging")
    kept, cut = sorted(aside.glob("*.safetensors"))
    before = kept.stat().st_ino
    cut.write_bytes(cut.read_bytes()[:-1])
    merging.merge(bases / "scattered", tmp_path / "adapter", tmp_path / "merged")
    assert content(tmp_path / "merged") == content(tmp_path / "whole")
    assert (tmp_path / "merged" / kept.name).stat().st_ino == before


def test_the_index_names_what_is_there(bases: Path, tmp_path: Path) -> None:
    trained(bases / "scattered", tmp_path / "adapter", ADAPTERS["two layers"])
    merging.merge(bases / "scattered", tmp_path / "adapter", tmp_path / "merged")
    made = read(tmp_path / "merged" / "model.safetensors.index.json")
    files = sorted(tmp_path.glob("merged/*.safetensors"))
    there = {name: path.name for path in files for name in load_file(path)}
    assert made["weight_map"] == there
    sizes = [tensor.nbytes for tensor in weights(tmp_path / "merged").values()]
    assert made["metadata"] == {"total_size": sum(sizes)}


@pytest.mark.parametrize("packing", ["nf4, double", "nf4, in bytes of bfloat16"])
def test_a_plain_adapter_is_served_as_it_is(bases: Path, tmp_path: Path, packing: str) -> None:
    trained(bases / packing, tmp_path / "adapter", ADAPTERS["plain"])
    made = export(order(tmp_path / "adapter", bases / packing, tmp_path / "serving"))
    assert (made.kind, made.max_lora_rank) == ("plain", 8)


def test_added_tokens_are_served_on_a_copy_that_stays_packed(bases: Path, tmp_path: Path) -> None:
    base = bases / "scattered"
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>", "<|result|>"]})
    tuned = trained(base, tmp_path / "adapter", ADAPTERS["two layers"], len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "adapter")
    made = export(order(tmp_path / "adapter", base, tmp_path / "serving"))
    assert made.kind == "resized"
    told = read(tmp_path / "serving" / RECORD)
    served = loaded(tmp_path / "serving" / told["model"])
    assert served.is_loaded_in_4bit
    served = peft.PeftModel.from_pretrained(served, tmp_path / "serving" / told["adapter"])
    tokens = torch.cat([TOKENS, torch.tensor([[512, 513]])], dim=1)
    with torch.no_grad():
        assert torch.equal(served.eval()(tokens).logits, tuned.eval()(tokens).logits)


def test_rows_for_a_packed_layer_are_refused_in_one_line(bases: Path, tmp_path: Path) -> None:
    base = bases / "nf4, the output layer too"
    trained(
        bases / "nf4",
        tmp_path / "adapter",
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    )
    for make in (
        lambda: export(order(tmp_path / "adapter", base, tmp_path / "serving")),
        lambda: merging.merge(base, tmp_path / "adapter", tmp_path / "merged"),
    ):
        with pytest.raises(Refused) as refusal:
            make()
        assert "lm_head.weight of the base is U8 and takes no rows" in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert os.listdir(tmp_path) == ["adapter"]


def test_a_base_whose_layers_lie_the_other_way_round_is_refused(
    bases: Path, tmp_path: Path
) -> None:
    """transformers turns Conv1D's weights before it packs them, and nothing in the files says so."""
    trained(bases / "nf4", tmp_path / "adapter", ADAPTERS["plain"])
    base = shutil.copytree(bases / "nf4", tmp_path / "base")
    edit(base / "config.json", model_type="gpt2")
    with pytest.raises(Unmergeable, match="is in 4 bits, for which its weights were turned"):
        merging.merge(base, tmp_path / "adapter", tmp_path / "merged")


def test_eight_bits_are_refused(bases: Path, embedded: Path, tmp_path: Path) -> None:
    told = BitsAndBytesConfig(load_in_8bit=True)
    model = loaded(embedded / "tiny-llama", quantization_config=told)
    model.save_pretrained(tmp_path / "base")
    trained(bases / "nf4", tmp_path / "adapter", ADAPTERS["plain"])
    with pytest.raises(Unmergeable, match=r"is quantised \(bitsandbytes\), and not to .* 4 bits"):
        merging.merge(tmp_path / "base", tmp_path / "adapter", tmp_path / "merged")

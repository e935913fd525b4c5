"""What vLLM is given answers as the trained model does, whatever kills the export of it."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from envtune.engine.export.export import RECORD, Order, export
from envtune.errors import Exit, Refused
from tests.harness import clean_environ, execute, read

ADDED = ["<|tool|>", "<|result|>", "<|thought|>"]
# Ids of a text with and without the added tokens; 512 is the base's vocabulary.
OLD_TEXT, NEW_TEXT = [1, 9, 40, 300, 7, 8, 2, 77], [1, 9, 512, 40, 514, 7, 513, 2]
LINEAR = ["q_proj", "v_proj", "down_proj"]
BOTH = ["embed_tokens", "lm_head"]
IDS = [7, 8, 300]


@dataclass(frozen=True)
class Kind:
    """A way to train: what PEFT is told, what is done to the base first, what comes out."""

    name: str
    becomes: str
    config: Mapping[str, Any]
    grows: bool = False
    base: str = "untied"
    rank: int = 8

    def __str__(self) -> str:
        return f"{self.name}-{self.base}"


PATTERNS = {
    "r": 4,
    "rank_pattern": {"v_proj": 12},
    "alpha_pattern": {"v_proj": 3},
    "use_rslora": True,
}
KINDS = [
    Kind("plain", "plain", {}),
    Kind("patterns", "plain", PATTERNS, rank=16),
    Kind("lora-of-the-embedding", "plain", {"target_modules": [*LINEAR, *BOTH]}),
    Kind("added-tokens", "resized", {}, grows=True),
    Kind("added-tokens", "resized", {}, grows=True, base="tied"),
    Kind("added-tokens", "resized", {}, grows=True, base="sharded"),
    Kind("added-and-lora", "resized", {"target_modules": [*LINEAR, *BOTH]}, grows=True),
    Kind("added-and-lora", "resized", {"target_modules": [*LINEAR, *BOTH]}, grows=True, base="tied"),
    Kind("added-and-single", "resized", {"trainable_token_indices": [512, 514]}, grows=True),
    Kind("added-and-single", "resized", {"trainable_token_indices": [512, 514]}, grows=True, base="tied"),
    Kind("single", "embedding-lora", {"trainable_token_indices": IDS}),
    Kind("single", "embedding-lora", {"trainable_token_indices": IDS}, base="tied"),
    Kind("single", "resized", {"trainable_token_indices": IDS}, base="unnamed"),
    Kind("single-both", "embedding-lora", {"trainable_token_indices": dict.fromkeys(BOTH, IDS), **PATTERNS}, rank=16),
    Kind("single-many", "embedding-lora", {"trainable_token_indices": [*range(20)], "layers_to_transform": [1]}, rank=32),
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of so small a model only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def kind_of(name: str, base: str = "untied") -> Kind:
    (found,) = [kind for kind in KINDS if (kind.name, kind.base) == (name, base)]
    return found


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory, embedded: Path) -> Path:
    """The embedded model, tied and not, in shards, and as one that vLLM does not know."""
    folder = tmp_path_factory.mktemp("bases")
    source = embedded / "tiny-llama"
    shutil.copytree(source, folder / "untied")
    model = AutoModelForCausalLM.from_pretrained(source)
    model.save_pretrained(folder / "sharded", max_shard_size="300KB")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder / "sharded")
    shutil.copytree(source, folder / "tied")
    weights(lambda tensors: tensors.pop("lm_head.weight"))(folder / "tied")
    edit(folder / "tied" / "config.json", tie_word_embeddings=True)
    shutil.copytree(folder / "untied", folder / "unnamed")
    edit(folder / "unnamed" / "config.json", architectures=["OtherForCausalLM"])
    return folder


def edit(path: Path, **changes: Any) -> None:
    """Changes keys of a JSON file, which may be a hard link to another's."""
    told = {**read(path), **changes}
    path.unlink()
    path.write_text(json.dumps(told))


@pytest.fixture(scope="session")
def trained(
    bases: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[Kind], tuple[Path, torch.Tensor]]:
    """An adapter of each kind with random weights, and what it answered; made once."""
    made: dict[str, tuple[Path, torch.Tensor]] = {}

    def train(kind: Kind) -> tuple[Path, torch.Tensor]:
        if str(kind) not in made:
            folder = tmp_path_factory.mktemp(str(kind))
            made[str(kind)] = folder, make_adapter(kind, bases / kind.base, folder)
        return made[str(kind)]

    return train


def make_adapter(kind: Kind, base: Path, folder: Path) -> torch.Tensor:
    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if kind.grows:
        tokenizer.add_special_tokens({"additional_special_tokens": ADDED})
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    told = {
        "r": 8,
        "lora_alpha": 16,
        "target_modules": LINEAR,
        "task_type": "CAUSAL_LM",
        **kind.config,
    }
    tuned = get_peft_model(model, LoraConfig(**told))
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    tuned.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return answers(tuned, kind)


def answers(model: Any, kind: Kind) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(
            torch.tensor([OLD_TEXT, NEW_TEXT if kind.grows else OLD_TEXT[::-1]])
        ).logits


def served(serving: Path) -> Path:
    told = read(serving / RECORD)
    return serving / (told["model"] or told["base"])


def serve(serving: Path, kind: Kind) -> torch.Tensor:
    """What transformers and PEFT answer from the record alone."""
    told = read(serving / RECORD)
    model = AutoModelForCausalLM.from_pretrained(served(serving))
    return answers(PeftModel.from_pretrained(model, serving / told["adapter"]), kind)


def order(adapter: Path, base: Path, serving: Path, **more: Any) -> Order:
    return Order(adapter=adapter, base=str(base), base_folder=base, serving=serving, **more)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_is_served_answers_as_the_trained_model_did(
    kind: Kind, bases: Path, trained: Any, tmp_path: Path
) -> None:
    adapter, expected = trained(kind)
    base = bases / kind.base
    before = digests(adapter), digests(base)
    made = export(order(adapter, base, tmp_path / "serving"))
    assert (made.kind, made.max_lora_rank) == (kind.becomes, kind.rank)
    found = serve(tmp_path / "serving", kind)
    assert found.shape == expected.shape
    close = 1e-4 if kind.becomes == "embedding-lora" else 1e-5
    assert (found - expected).abs().max() < close
    assert (digests(adapter), digests(base)) == before
    assert sorted(os.listdir(tmp_path)) == [".serving.files", "serving"]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_the_adapter_holds_what_vllm_reads_and_nothing_else(
    kind: Kind, bases: Path, trained: Any, tmp_path: Path
) -> None:
    export(order(trained(kind)[0], bases / kind.base, tmp_path / "serving"))
    told = read(tmp_path / "serving" / RECORD)
    config = read(tmp_path / "serving" / told["adapter"] / "adapter_config.json")
    tensors = load_file(tmp_path / "serving" / told["adapter"] / "adapter_model.safetensors")
    copies = "base_layer.weight"  # PEFT's, which vLLM passes over
    endings = ("lora_A.weight", "lora_B.weight", "lora_embedding_A", "lora_embedding_B", copies)
    assert all(name.endswith(endings) for name in tensors)
    assert config["trainable_token_indices"] is None
    ranks = [config["r"], *config["rank_pattern"].values()]
    assert max(ranks) == told["rank"] <= told["max_lora_rank"] == kind.rank
    rows = {len(t) for n, t in tensors.items() if n.endswith("lm_head.lora_B.weight")}
    assert rows <= {read(served(tmp_path / "serving") / "config.json")["vocab_size"]}


def test_a_server_is_told_of_another_tokenizer_and_template(
    bases: Path, trained: Any, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(trained(kind_of("plain"))[0], adapter)
    export(order(adapter, bases / "untied", tmp_path / "same"))
    told = read(tmp_path / "same" / RECORD)
    assert (told["tokenizer_changes"], told["chat_template"]) == ([], None)
    (adapter / "chat_template.jinja").write_text("{{ messages }}")
    export(order(adapter, bases / "untied", tmp_path / "other"))
    told = read(tmp_path / "other" / RECORD)
    assert (told["tokenizer_changes"], told["tokenizer"]) == (["chat template"], "adapter")
    assert (tmp_path / "other" / told["chat_template"]).read_text() == "{{ messages }}"
    export(order(trained(kind_of("added-tokens"))[0], bases / "untied", tmp_path / "grown"))
    told = read(tmp_path / "grown" / RECORD)
    assert (told["tokenizer_changes"], told["tokenizer"]) == (["vocabulary"], "base")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "grown" / told["tokenizer"])
    assert tokenizer.encode("<|result|>") == [513]
    assert tokenizer.chat_template == AutoTokenizer.from_pretrained(bases / "untied").chat_template


def test_what_does_not_change_costs_no_space(bases: Path, trained: Any, tmp_path: Path) -> None:
    below = tmp_path / "base"  # one volume
    shutil.copytree(bases / "sharded", below)
    export(order(trained(kind_of("added-tokens", "sharded"))[0], below, tmp_path / "serving"))
    shards = sorted(below.glob("model-*.safetensors"))
    linked = [p for p in shards if p.samefile(tmp_path / "serving" / "base" / p.name)]
    assert len(shards) - 2 <= len(linked) < len(shards)
    index = read(tmp_path / "serving" / "base" / "model.safetensors.index.json")
    sizes = [
        t.nbytes for p in shards for t in load_file(tmp_path / "serving" / "base" / p.name).values()
    ]
    assert index["metadata"]["total_size"] == sum(sizes)


def test_a_base_of_links_such_as_the_hubs_cache_is_followed(
    bases: Path, trained: Any, tmp_path: Path
) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    shutil.copytree(bases / "sharded", blobs)
    snapshot.mkdir()
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("..") / "blobs" / path.name)
    kind = kind_of("added-tokens", "sharded")
    export(order(trained(kind)[0], snapshot, tmp_path / "deeper" / "serving"))
    found = serve(tmp_path / "deeper" / "serving", kind)
    assert (found - trained(kind)[1]).abs().max() < 1e-5


def test_a_base_whose_one_file_is_named_by_an_index_keeps_it(
    bases: Path, trained: Any, tmp_path: Path
) -> None:
    base, kind = tmp_path / "base", kind_of("added-tokens")
    shutil.copytree(bases / "untied", base)
    shard = "model-00001-of-00001.safetensors"
    names = load_file((base / "model.safetensors").rename(base / shard))
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, shard)}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    export(order(trained(kind)[0], base, tmp_path / "serving"))
    assert (serve(tmp_path / "serving", kind) - trained(kind)[1]).abs().max() < 1e-5


def test_a_base_that_is_gone_is_told(trained: Any, tmp_path: Path) -> None:
    ordered = order(trained(kind_of("plain"))[0], tmp_path / "gone", tmp_path / "serving")
    done = execute(command(tmp_path, ordered), tmp_path, clean_environ())
    assert (done.code, done.err) == (Exit.ACCESS, f"base: {tmp_path / 'gone'} is not there\n")


def test_rows_are_cast_to_the_type_of_the_base(bases: Path, trained: Any, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(bases / "untied", dtype=torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    adapter = trained(kind_of("added-tokens"))[0]
    export(order(adapter, tmp_path / "base", tmp_path / "serving"))
    made = load_file(tmp_path / "serving" / "base" / "model.safetensors")
    assert {t.dtype for t in made.values()} == {torch.bfloat16}
    rows = load_file(adapter / "adapter_model.safetensors")["base_model.model.lm_head.weight"]
    assert torch.equal(made["lm_head.weight"], rows.bfloat16())


def test_servers_of_the_past_get_the_added_rows_when_asked_for(
    bases: Path, trained: Any, tmp_path: Path
) -> None:
    adapter = trained(kind_of("added-tokens"))[0]
    export(order(adapter, bases / "untied", tmp_path / "serving"))
    assert read(tmp_path / "serving" / RECORD)["new_embeddings"] is None
    export(order(adapter, bases / "untied", tmp_path / "serving", new_embeddings=True))
    folder = tmp_path / "serving" / read(tmp_path / "serving" / RECORD)["new_embeddings"]
    rows = load_file(folder / "new_embeddings.safetensors")
    whole = load_file(adapter / "adapter_model.safetensors")
    for name, key in (("input", "model.embed_tokens"), ("output", "lm_head")):
        assert torch.equal(
            rows[f"{name}_embeddings"], whole[f"base_model.model.{key}.weight"][512:]
        )
    assert set(load_file(folder / "adapter_model.safetensors")) == set(
        load_file(tmp_path / "serving" / "adapter" / "adapter_model.safetensors")
    )
    assert (folder / "tokenizer.json").exists()


def test_what_vllm_refuses_is_said_and_left_to_the_merge(bases: Path, tmp_path: Path) -> None:
    kind = Kind("dora", "merged", {"use_dora": True})
    make_adapter(kind, bases / "untied", tmp_path / "adapter")
    made = export(order(tmp_path / "adapter", bases / "untied", tmp_path / "serving"))
    assert (made.kind, made.max_lora_rank) == ("merged", None)
    told = read(tmp_path / "serving" / RECORD)
    assert (
        told["reason"] == "It is a DoRA (use_dora: True), which vLLM does not serve as an adapter."
    )
    assert (told["model"], told["adapter"]) == (None, None)
    assert os.listdir(tmp_path / "serving") == [RECORD]


def command(folder: Path, ordered: Order) -> list[str]:
    path = folder / "order.json"
    told = {
        name: str(getattr(ordered, name)) for name in ("adapter", "base", "base_folder", "serving")
    }
    path.write_text(json.dumps({**told, "new_embeddings": ordered.new_embeddings}))
    return [sys.executable, "-m", "envtune.engine.export.export", str(path)]


def weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    """A change of the tensors in a folder's one file."""

    def damage(folder: Path) -> None:
        (path,) = folder.glob("*.safetensors")
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path, {"format": "pt"})

    return damage


def test_layers_that_were_trained_apart_do_not_become_one(
    bases: Path, trained: Any, tmp_path: Path
) -> None:
    adapter = trained(kind_of("added-tokens"))[0]
    with pytest.raises(Refused, match="lm_head was trained apart, and the base has one tensor"):
        export(order(adapter, bases / "tied", tmp_path / "serving"))
    assert not os.listdir(tmp_path)

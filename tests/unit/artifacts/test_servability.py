"""What becomes of an adapter on its way to vLLM, and which adapter fits no base: as tables."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from envtune.artifacts import adapterfiles, compatibility, serving_rules
from envtune.artifacts.adapters import Adapter, Base, Tokenizer, split
from envtune.artifacts.servability import decide, tokenizer_changes

VOCABULARY, HIDDEN, RANK = 50, 32, 4
LAYER = "model.layers.0.self_attn.q_proj"
TOKENS = "token_adapter.trainable_tokens_delta"
SPLIT = Tokenizer("v", ("<s>", "</s>"), "{{ messages }}")


def entries(shapes: Mapping[str, list[int]], dtype: str = "F32") -> dict[str, dict[str, Any]]:
    return {name: {"dtype": dtype, "shape": shape} for name, shape in shapes.items()}


def adapter(
    more: Mapping[str, list[int]] | None = None, *, rank: int = RANK, tokenizer: Tokenizer | None = SPLIT,
    **config: Any,
) -> Adapter:  # fmt: skip
    """A LoRA of one layer. `more`: shapes of tensors by their names in the model."""
    pair = {f"{LAYER}.lora_A.weight": [rank, HIDDEN], f"{LAYER}.lora_B.weight": [HIDDEN, rank]}
    tensors = entries({f"base_model.model.{k}": v for k, v in {**pair, **(more or {})}.items()})
    said = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, **config}
    return Adapter(said, tensors, tokenizer)


def base(
    architecture: str = "LlamaForCausalLM", *, tied: bool = False, dtype: str = "F32", hidden: int = HIDDEN
) -> Base:  # fmt: skip
    shapes = {
        "model.embed_tokens.weight": [VOCABULARY, hidden],
        f"{LAYER}.weight": [hidden, hidden],
    }
    if not tied:
        shapes["lm_head.weight"] = [VOCABULARY, hidden]
    config = {"architectures": [architecture], "tie_word_embeddings": tied}
    return Base(config, entries(shapes, dtype), SPLIT)


def rows(count: int = 53, part: str = "weight") -> dict[str, list[int]]:
    return {f"model.embed_tokens.{part}": [count, HIDDEN], f"lm_head.{part}": [count, HIDDEN]}


def tokens(count: int) -> dict[str, Any]:
    return {
        "more": {f"model.embed_tokens.{TOKENS}": [count, HIDDEN]},
        "trainable_token_indices": [*range(count)],
    }


def embedding_lora(vocabulary: int = VOCABULARY) -> dict[str, list[int]]:
    return {
        "model.embed_tokens.lora_embedding_A": [RANK, vocabulary],
        "model.embed_tokens.lora_embedding_B": [HIDDEN, RANK],
        "lm_head.lora_A.weight": [RANK, HIDDEN],
        "lm_head.lora_B.weight": [vocabulary, RANK],
        **rows(vocabulary, "base_layer.weight"),
    }


@pytest.mark.parametrize(
    ("given", "below", "kind", "said"),
    [
        (adapter(), base(), "plain", "LoRA matrices only"),
        (adapter(use_rslora=True, init_lora_weights="gaussian"), base(), "plain", "LoRA matrices only"),
        (adapter(embedding_lora()), base(), "plain", "LoRA matrices only"),
        (adapter(embedding_lora()), base(tied=True), "plain", "LoRA matrices only"),
        (adapter(embedding_lora(53)), base(), "resized", "all rows"),
        (adapter(rows()), base(), "resized", "all rows"),
        (adapter(rows()), base(tied=True), "resized", "all rows"),
        (adapter(rows()), base("GemmaForCausalLM"), "resized", "all rows"),
        (adapter(**tokens(3)), base(), "embedding-lora", "single tokens"),
        (adapter(**tokens(3)), base("GemmaForCausalLM"), "resized", "no LoRA of the embedding of a GemmaForCausalLM"),
        (adapter(**tokens(3)), Base({}, base().tensors), "resized", "that names no architecture"),
        (adapter(**tokens(513)), base(), "resized", "513 are more than 512"),
        (adapter(embedding_lora()), base("GemmaForCausalLM"), "merged", "LoRA of the embedding"),
        (adapter(), base("GPT2LMHeadModel"), "merged", "no adapter of a GPT2LMHeadModel"),
        (adapter(rows(), modules_to_save=["lm_head"]), base(), "merged", "(modules_to_save: ['lm_head'])"),
        (adapter({"model.norm.weight": [HIDDEN]}, modules_to_save=["norm"]), base(), "merged", "['norm']"),
        (adapter(use_dora=True), base(), "merged", "(use_dora: True)"),
        (adapter(bias="all"), base(), "merged", "(bias: all)"),
        (adapter(lora_bias=True), base(), "merged", "(lora_bias: True)"),
        (adapter(init_lora_weights="pissa_niter_16"), base(), "merged", "pissa_niter_16"),
        (adapter(init_lora_weights="olora"), base(), "merged", "olora"),
        (adapter(use_bdlora={"nblocks": 2}), base(), "merged", "use_bdlora"),
        (adapter(rank=513), base(), "merged", "Its rank is 513"),
        (adapter(rank_pattern={"k_proj": 600}), base(), "merged", "Its rank is 600"),
        (adapter({f"{LAYER}.lora_magnitude_vector": [HIDDEN]}), base(), "merged", "lora_magnitude_vector"),
    ],
)  # fmt: skip
def test_an_adapter_becomes_what_vllm_serves(
    given: Adapter, below: Base, kind: str, said: str
) -> None:
    made = decide(given, below)
    assert made.kind == kind
    assert said in made.reason
    assert made.reason.endswith(".") and "\n" not in made.reason
    assert (made.max_lora_rank is None) == (kind == "merged")


@pytest.mark.parametrize(
    ("given", "rank", "rounded"),
    [
        (adapter(rank=1), 1, 1),
        (adapter(rank=2), 2, 8),
        (adapter(rank=16), 16, 16),
        (adapter(rank=24), 24, 32),
        (adapter(rank=257), 257, 320),
        (adapter(rank=321), 321, 512),
        (adapter(rank_pattern={"k_proj": 65}), 65, 128),
        (adapter(**tokens(2)), 4, 8),
        (adapter(**tokens(20)), 20, 32),
    ],
)
def test_the_rank_is_the_highest_and_rounded_up_to_one_that_vllm_takes(
    given: Adapter, rank: int, rounded: int
) -> None:
    made = decide(given, base())
    assert (made.rank, made.max_lora_rank) == (rank, rounded)
    assert rounded in serving_rules.RANKS


def test_the_rows_are_told_with_their_place_in_the_base() -> None:
    named = {"model.embed_tokens": [1, 2], "lm_head": [3]}
    shapes = {f"model.embed_tokens.{TOKENS}": [2, HIDDEN], f"lm_head.{TOKENS}": [1, HIDDEN]}
    head, embed = decide(adapter(shapes, trainable_token_indices=named), base()).embeddings
    assert (head.tensor, head.indices) == ("lm_head.weight", (3,))
    assert (embed.tensor, embed.indices) == ("model.embed_tokens.weight", (1, 2))
    assert embed.tokens == f"base_model.model.model.embed_tokens.{TOKENS}"


def test_a_tied_output_layer_has_no_place_in_the_base() -> None:
    head, embed = decide(adapter(rows()), base(tied=True)).embeddings
    assert (head.tensor, embed.tensor) == ("", "model.embed_tokens.weight")


@pytest.mark.parametrize(
    ("trained", "changes"),
    [
        (None, ()),
        (SPLIT, ()),
        (Tokenizer("w", SPLIT.ends, SPLIT.template), ("vocabulary",)),
        (Tokenizer("v", ("<s>", "<|im_end|>"), SPLIT.template), ("begin and end",)),
        (Tokenizer("v", SPLIT.ends, "other"), ("chat template",)),
    ],
)
def test_a_change_of_the_tokenizer_is_told(
    trained: Tokenizer | None, changes: tuple[str, ...]
) -> None:
    assert tokenizer_changes(trained, SPLIT) == changes
    assert decide(adapter(tokenizer=trained), base()).tokenizer_changes == changes


FITTING = [
    (adapter(), base()),
    (adapter(rank_pattern={"q_proj": 4}, r=8), base()),
    (adapter(rows()), base()),
    (adapter(rows()), base(tied=True)),
    (adapter(rows(50), tokenizer=None), base()),
    (adapter(embedding_lora()), base()),
    (adapter(embedding_lora()), base(tied=True)),
    (adapter(embedding_lora(53)), base(tied=True)),
    (adapter(**tokens(3)), base()),
    (adapter({"model.layers.0.mlp.experts.lora_A.weight": [8, HIDDEN],
              "model.layers.0.mlp.experts.lora_B.weight": [64, 8]}), base()),
    (adapter(), Base({}, {})),
    (adapter(rows(), tokenizer=Tokenizer("w", size=53)), base()),
    (adapter({"model.embed_tokens.weight": [50, HIDDEN], "lm_head.modules_to_save.weight": [50, HIDDEN]},
             modules_to_save=["embed_tokens"]), base()),
    (adapter({"model.norm.weight": [HIDDEN]}, modules_to_save=["norm"]), Base(base().config, {
        **base().tensors, "model.norm.weight": {"dtype": "F32", "shape": [HIDDEN]}})),
    (adapter(), base(dtype="U8", hidden=1)),  # four bits each: the shape is not the layer's
    (Adapter(adapter().config, entries({
        "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight": [4, HIDDEN],
        "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_B.weight": [HIDDEN, 4],
    })), base()),
]  # fmt: skip


@pytest.mark.parametrize(("given", "below"), FITTING)
def test_an_adapter_of_this_base_has_no_problem(given: Adapter, below: Base) -> None:
    assert compatibility.problems(given, below) == []


@pytest.mark.parametrize(
    ("given", "below", "said"),
    [
        (adapter(peft_type="VERA"), base(), "peft_type is 'VERA'; only LORA can be served or merged"),
        (Adapter({}, {}), base(), "peft_type is None"),
        (adapter(r="eight"), base(), "r is 'eight'; a whole number above 0 is needed"),
        (adapter(lora_alpha=None), base(), "lora_alpha is None; a number is needed"),
        (adapter(alora_invocation_tokens=[5]), base(), "acts from certain tokens on (aLoRA)"),
        (adapter(layer_replication=[[0, 1]]), base(), "can be neither served nor merged"),
        (adapter(r=8), base(), f"{LAYER} has rank 4 in the file and 8 in adapter_config.json"),
        (adapter({"lm_head.lora_A.weight": [RANK, HIDDEN]}), base(), "lm_head has one of the two"),
        (adapter({"model.layers.7.self_attn.q_proj.lora_A.weight": [RANK, HIDDEN],
                  "model.layers.7.self_attn.q_proj.lora_B.weight": [HIDDEN, RANK]}), base(),
         "model.layers.7.self_attn.q_proj has no tensor in the base: the adapter is of another model"),
        (adapter(), base(hidden=64), f"{LAYER} is for 32x32 and the base has 64x64: it is of another model"),
        (adapter(rows()), base(hidden=64), "lm_head is for 32 and the base has 64"),
        (adapter(embedding_lora(53) | rows(50, "base_layer.weight")), base(), "is for 53x32 and the base has 50x32"),
        (adapter(rows(), tokenizer=None), base(), "3 tokens more than the base and no tokenizer"),
        (adapter(**tokens(3) | {"trainable_token_indices": [1]}), base(), "3 trained tokens and 1 indices"),
        (adapter(**tokens(1) | {"trainable_token_indices": [50]}), base(), "50 rows and a trained token of number 50"),
        (adapter(tokenizer=Tokenizer("w", size=53)), base(), "3 tokens more than the base, and it holds no rows"),
        (adapter(rows()), base(dtype="I8"), "lm_head.weight of the base is I8 and takes no rows"),
        (adapter(rows()), Base({}, {}), "the base has no safetensors"),
    ],
)  # fmt: skip
def test_an_adapter_that_fits_no_base_is_told_on_one_line(
    given: Adapter, below: Base, said: str
) -> None:
    (told,) = [line for line in compatibility.problems(given, below) if said in line]
    assert "\n" not in told


TOKENIZER = {
    "model": {"vocab": {"a": 0, "b": 1}, "merges": []},
    "added_tokens": [{"content": "</s>", "id": 5, "special": True}],
}


def write_tokenizer(
    folder: Path, tokenizer: Any = None, template: Any = "{{ m }}", **more: Any
) -> Path:
    folder.mkdir()
    settings = {"eos_token": "</s>", "chat_template": template, **more}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer or TOKENIZER, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def test_a_tokenizer_that_was_only_saved_again_is_the_same(tmp_path: Path) -> None:
    before = adapterfiles.tokenizer(write_tokenizer(tmp_path / "before"))
    again = {**TOKENIZER, "truncation": None, "added_tokens": [{"id": 5, "content": "</s>"}]}
    named = [{"name": "tools", "template": "x"}, {"name": "default", "template": "{{ m }}"}]
    folder = write_tokenizer(tmp_path / "again", again, named, eos_token={"content": "</s>"})
    assert before is not None and before.size == 6
    assert adapterfiles.tokenizer(folder) == before
    (folder / "chat_template.jinja").write_text("{{ m }} in a file")
    assert adapterfiles.tokenizer(folder) == replace(before, template="{{ m }} in a file")


def test_a_folder_without_a_vocabulary_has_no_tokenizer(tmp_path: Path) -> None:
    (write_tokenizer(tmp_path / "half") / "tokenizer.json").unlink()
    assert adapterfiles.tokenizer(tmp_path / "half") is None


@pytest.mark.parametrize(
    ("key", "module", "part"),
    [
        (f"base_model.model.{LAYER}.lora_A.weight", LAYER, "lora_A.weight"),
        (f"base_model.model.lm_head.{TOKENS}", "lm_head", TOKENS),
        ("base_model.model.lm_head.token_adapter.base_layer.weight", "lm_head", "token_adapter.base_layer.weight"),
        ("base_model.model.lm_head.modules_to_save.weight", "lm_head", "modules_to_save.weight"),
        ("base_model.model.lm_head.weight", "lm_head", "weight"),
        ("base_model.model.odd", "odd", ""),
    ],
)  # fmt: skip
def test_a_tensors_name_is_split_where_the_adapters_part_begins(
    key: str, module: str, part: str
) -> None:
    assert split(key) == (module, part)


def test_no_architecture_takes_a_lora_of_the_embedding_and_none_at_all() -> None:
    assert not serving_rules.WITH_EMBEDDING_LORA & serving_rules.WITHOUT_LORA

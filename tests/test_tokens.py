"""What rows become is what Axolotl's own strategies make of them, id by id and label by label.

DRILL=1 takes all templates, types and rows; `make drill-tokens` does, and counts.
"""

import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch  # noqa: F401  # before a tokenizer is loaded, which would do without it
from axolotl.loaders import load_tokenizer
from axolotl.prompt_strategies import load as load_strategy
from axolotl.utils.data import wrappers
from axolotl.utils.dict import DictDefault
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from envtune.data.batches import BadRow, Batch, refuse
from envtune.engine.data import tokenizer
from envtune.engine.data.backend import Backend, Differs
from envtune.engine.data.types import templates
from envtune.engine.data.types.made import ids_of
from envtune.engine.data.types.strategies import strategy
from envtune.settings import upstream
from tests import rows_made

DRILL = bool(os.environ.get("DRILL"))
TEMPLATES = sorted(
    p.stem for p in (templates._axolotl() / "utils/chat_templates/templates").glob("*.jinja")
)
TYPES = sorted(upstream.instruct()["types"])
# What a family of templates writes, as tokens of the test's vocabularies.
ADDED = [
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|end|>", "<|user|>",
    "<|assistant|>", "<start_of_turn>", "<end_of_turn>", "<turn|>", "[INST]", "[/INST]", "<think>", "</think>",
    "<|END_OF_TURN_TOKEN|>", "<|begin_of_text|>", "[|endofturn|]", "<|eom|>", "<|eot|>",
]  # fmt: skip
PATTERN = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(folder: Path, *, begins: bool) -> None:
    """A vocabulary as Llama 3's (`begins`, and places without their spaces) or Qwen's."""
    made = Tokenizer(models.BPE(ignore_merges=begins))
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    made.decoder = decoders.ByteLevel()
    dice = random.Random(7)
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<|start|>", "<|stop|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator((rows_made.text(dice) for _ in range(3000)), trainer)
    if begins:
        trims = processors.ByteLevel(trim_offsets=True)
        begin = processors.TemplateProcessing(
            single="<|start|> $A", special_tokens=[("<|start|>", 0)]
        )
        made.post_processor = processors.Sequence([trims, begin])
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    begun = {"bos_token": "<|start|>"} if begins else {}
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|stop|>", **begun}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def sentence_piece(folder: Path) -> None:
    """A vocabulary as Llama 2's, whose file says something else than what is loaded."""
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    dice = random.Random(8)
    trainer = trainers.BpeTrainer(
        vocab_size=1500, special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))], show_progress=False
    )  # fmt: skip
    made.train_from_iterator((rows_made.text(dice) for _ in range(3000)), trainer)
    folder.mkdir()
    made.save(str(folder / "tokenizer.json"))
    said = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


MAKERS: dict[str, Callable[[Path], None]] = {
    "bytes": lambda folder: byte_level(folder, begins=False),
    "trimmed": lambda folder: byte_level(folder, begins=True),
    "pieces": sentence_piece,
}


@pytest.fixture(scope="session")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Backend]]:
    """Axolotl's tokenizer and ours, of each kind."""
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: pair(make, root / name) for name, make in MAKERS.items()}


def pair(make: Callable[[Path], None], folder: Path) -> tuple[Any, Backend]:
    make(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    theirs.pad_token = theirs.eos_token
    theirs.add_special_tokens({"additional_special_tokens": ADDED})
    ours = tokenizer.load(folder, {"special_tokens": {"additional_special_tokens": ADDED}})
    assert ours is not None
    backend = Backend(ours)
    assert backend.slow is None
    return theirs, backend


def theirs_of(row: Mapping[str, Any], made: Any) -> list[tuple[list[int], list[int]]] | None:
    """Ids and labels of the rows that Axolotl makes of one, or None where it raises."""
    batched = made.supports_batched
    try:
        found = made.tokenize_prompt({k: [v] for k, v in row.items()} if batched else dict(row))
    except Exception:
        return None
    if not batched:
        found = {key: [value] for key, value in found.items()}
    return list(zip(found.get("input_ids", []), found.get("labels", []), strict=True))


def differences(
    rows: Sequence[Mapping[str, Any]],
    keys: Mapping[str, Any],
    config: Mapping[str, Any],
    pair: tuple[Any, Backend],
) -> Iterator[str]:
    """Rows that become something else here than there."""
    theirs, backend = pair
    cfg = DictDefault({"sequence_len": 64, "train_on_inputs": False, **config})
    style = str(keys["type"]).partition(":")[2] if isinstance(keys["type"], str) else ""
    if isinstance(keys["type"], Mapping):
        axolotl = load_strategy("user_defined", theirs, cfg, dict(keys["type"]))
    else:
        validated = {"message_property_mappings": {"role": "role", "content": "content"}, **keys}
        axolotl = load_strategy(keys["type"], theirs, cfg, DictDefault(validated))
    if axolotl is None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                wrappers, "wrap_dataset_for_tokenized_prompt", lambda made, *_, **__: made
            )
            base = keys["type"].partition(":")[0]
            axolotl = wrappers.DATASET_HANDLERS[base](style or None, theirs, cfg, None, {})[0]
    made = strategy(keys, dict(cfg), backend)
    wanted = [theirs_of(row, axolotl) for row in rows]
    told: list[BadRow] = []
    places = range(len(rows))
    whole = made.make(Batch("rows", places, rows), told.append)
    refused = {int(bad.where.partition(":")[2]) for bad in told}
    ids, coded = ids_of(whole.coded), whole.coded
    labels = [number if number >= 0 else -100 for number in coded.tolist()]
    at = 0
    for i, want in enumerate(wanted):
        if (want is None) != (i in refused):
            yield f"{'raises there' if want is None else 'is refused here'}: {rows[i]!r:.300} {[str(b) for b in told if b.where == f'rows:{i}']}"
        for ids_there, labels_there in [] if want is None or i in refused else want:
            first, last = whole.splits[at : at + 2]
            at += 1
            if ids[first:last].tolist() != ids_there:
                yield f"ids of {rows[i]!r:.300}: {ids[first:last].tolist()} {ids_there}"
            elif labels[first:last] != labels_there:
                yield f"labels of {rows[i]!r:.600}: {labels[first:last]} {labels_there}"
    if at != len(whole.splits) - 1:
        yield f"{at} rows there, {len(whole.splits) - 1} here"


def some(options: Sequence[str], count: int, seed: int) -> list[str]:
    return list(options) if DRILL else random.Random(seed).sample(list(options), count)


def test_conversations_by_any_template_become_what_axolotl_makes(
    tokenizers: dict[str, tuple[Any, Backend]], dice: random.Random, seed: int
) -> None:
    for name in some(TEMPLATES, 5, seed):
        for kind in ("trimmed", "pieces"):
            rows = rows_made.conversations(dice, 300 if DRILL else 30, tools=True)
            found = list(
                differences(
                    rows, {"type": "chat_template", "chat_template": name}, {}, tokenizers[kind]
                )
            )
            print(name, kind, len(found), len(rows))
            assert not found, (name, kind, found[:2])


@pytest.mark.parametrize("kind", MAKERS)
def test_what_of_a_conversation_is_trained_is_what_axolotl_trains(
    tokenizers: dict[str, tuple[Any, Backend]], dice: random.Random, kind: str
) -> None:
    keys = {
        "type": "chat_template",
        "chat_template": dice.choice(["chatml", "llama3", "mistral_v1", "qwen3", "gemma3"]),
    }
    for more, config in [
        ({"message_field_training": "train"}, {}),
        ({"train_on_eos": "all"}, {"train_on_inputs": True}),
        ({"train_on_eos": "last"}, {"eot_tokens": ["<|im_end|>", "<|eot_id|>", "<end_of_turn>"]}),
        ({"train_on_eos": "none", "roles_to_train": ["user", "gpt"]}, {}),
        ({"train_on_eot": "all"}, {"eot_tokens": ["<|im_end|>", "<|eot_id|>"]}),
        (
            {"drop_system_message": True, "roles_to_train": ["system", "assistant"]},
            {"base_model": "x/Mistral"},
        ),
        ({"chat_template": "qwen3"}, {"chat_template_kwargs": {"enable_thinking": False}}),
        ({"roles": {"assistant": ["user", "human"], "user": ["assistant"]}}, {}),
    ]:
        rows = rows_made.conversations(dice, 200 if DRILL else 20)
        theirs, _ = tokenizers[kind]
        theirs.name_or_path = str(config.get("base_model", ""))
        found = list(differences(rows, {**keys, **more}, config, tokenizers[kind]))
        assert not found, (keys, more, config, found[:2])
    theirs.name_or_path = ""


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("inputs", [False, True])
def test_questions_and_answers_become_what_axolotl_makes(
    tokenizers: dict[str, tuple[Any, Backend]],
    dice: random.Random,
    seed: int,
    kind: str,
    inputs: bool,
) -> None:
    for name in some(TYPES, 8, seed):
        texts = rows_made.instructions(dice, 200 if DRILL else 25)
        columns = json.dumps(upstream.instruct()["types"][name]["columns"])
        rows = [
            {**row, **{c: rows_made.text(dice) for c in _named(columns) if c not in row}}
            for row in texts
        ]
        found = list(
            differences(
                rows,
                {"type": name},
                {"train_on_inputs": inputs, "sequence_len": 48},
                tokenizers[kind],
            )
        )
        assert not found, (name, kind, found[:2])


def _named(columns: str) -> set[str]:
    import re

    return set(re.findall(r"\{(\w+)\}", columns))


@pytest.mark.parametrize("kind", MAKERS)
def test_types_that_are_a_mapping_plain_texts_and_segments_too(
    tokenizers: dict[str, tuple[Any, Backend]], dice: random.Random, kind: str
) -> None:
    count = 2000 if DRILL else 40
    texts = rows_made.instructions(dice, count)
    named = {
        "field_instruction": "a question",
        "field_output": "a.b",
        "format": "Q {instruction} {input}",
        "no_input_format": "Q {instruction}\n",
    }
    asked = [
        {
            "a question": row["instruction"],
            "a.b": row["output"],
            **({"input": row["input"]} if "input" in row else {}),
        }
        for row in texts
    ]
    with_system = {**named, "system_prompt": "Be brief.", "system_format": "<s>{system}</s> "}
    plain = [{"text": row["output"] * dice.randrange(1, 9)} for row in texts]
    pieces = [
        {
            "segments": [
                {"label": dice.random() < 0.5, "text": rows_made.text(dice)}
                for _ in range(dice.randrange(5))
            ]
        }
        for _ in range(count)
    ]
    for rows, keys in (
        (asked, {"type": named}),
        (
            [
                {**row, **({"system": rows_made.text(dice)} if i % 3 else {})}
                for i, row in enumerate(asked)
            ],
            {"type": with_system},
        ),
        (plain, {"type": "completion"}),
        ([{"story": row["text"]} for row in plain], {"type": "completion", "field": "story"}),
        (pieces, {"type": "input_output"}),
    ):
        for length in (24, 512):
            found = list(differences(rows, keys, {"sequence_len": length}, tokenizers[kind]))
            assert not found, (keys, kind, found[:2])


@pytest.mark.parametrize("kind", MAKERS)
def test_rows_of_a_template_become_what_our_own_type_makes_of_them_in_axolotl(
    tokenizers: dict[str, tuple[Any, Backend]], dice: random.Random, kind: str
) -> None:
    """Laid out by columns, with and without a token that ends a turn; or as texts with marks."""
    count = 2000 if DRILL else 60
    rows = [
        {"q": rows_made.text(dice), "a": dice.choice([rows_made.text(dice), None])}
        for _ in range(count)
    ]
    marked = [
        {
            "body": "".join(
                f"Q: {rows_made.text(dice)}\nA: {rows_made.text(dice)}\n"
                for _ in range(dice.randrange(3))
            )
        }
        for _ in range(count)
    ]
    own = {"type": "envtune.engine.rows"}
    asked = {"response_template": "A: "}
    chat = "<|im_start|>user\n{{q}}\n<|im_end|>\n<|im_start|>assistant\n{{a}}\n"
    for data, keys, config in (
        (rows, {**own, "input_format": "Q: {{q}}\n\nA: {{a}}"}, asked),
        (rows, {**own, "input_format": f"{chat}<|im_end|>"}, {"response_template": "assistant\n"}),
        (
            rows,
            {**own, "input_format": f"{chat}<|unheard_of|>"},
            {"response_template": "assistant\n"},
        ),
        (rows, {**own, "input_format": "{{q}} and {{nothing}}"}, asked),
        (
            rows,
            {**own, "input_format": "Q: {{q}}\n\nA: {{a}}"},
            {"response_template": ["Q: ", "A: ", "B"]},
        ),
        (marked, {**own, "field": "body"}, asked),
        (marked, {**own, "field": "body"}, {**asked, "instruction_template": "Q: "}),
        (marked, {**own, "field": "body"}, {}),
    ):
        for length in (24, 512):
            told = {"sequence_len": length, "response_template": None, "instruction_template": None}
            found = list(differences(data, keys, {**told, **config}, tokenizers[kind]))
            assert not found, (keys, kind, found[:2])


@pytest.mark.parametrize("fast", [True, False])
def test_a_batch_of_no_rows_is_no_rows(
    tokenizers: dict[str, tuple[Any, Backend]], fast: bool
) -> None:
    _, backend = tokenizers["pieces"]
    backend = backend if fast else Backend(backend.loaded, "asked for")
    for keys in (
        {"type": "alpaca"},
        {"type": "completion"},
        {"type": "input_output"},
        {"type": "chat_template", "chat_template": "chatml"},
    ):
        made = strategy(keys, {"sequence_len": 64}, backend).make(Batch("rows", [], []), refuse)
        assert (made.coded.tolist(), made.splits.tolist()) == ([], [0])


def test_without_fastokens_the_same_is_made(
    tokenizers: dict[str, tuple[Any, Backend]], dice: random.Random
) -> None:
    for kind, (theirs, backend) in tokenizers.items():
        slow = (theirs, Backend(backend.loaded, "asked for"))
        assert slow[1].slow
        for rows, keys in (
            (
                rows_made.conversations(dice, 20),
                {"type": "chat_template", "chat_template": "qwen3"},
            ),
            (rows_made.instructions(dice, 20), {"type": "alpaca"}),
        ):
            assert not list(differences(rows, keys, {}, slow)), kind


def test_other_ids_than_hugging_faces_are_seen(
    tokenizers: dict[str, tuple[Any, Backend]], dice: random.Random
) -> None:
    _, backend = tokenizers["bytes"]
    texts = [rows_made.text(dice) for _ in range(300)]
    backend.prove(texts, backend.encode(texts, special=True), special=True)
    longest = max(texts, key=lambda text: len(backend.ids(text)))
    made = backend.encode(
        [text + " x" if text == longest else text for text in texts], special=True
    )
    with pytest.raises(Differs):
        backend.prove(texts, made, special=True)


CONFIGURED: list[dict[str, Any]] = [
    {},
    {"special_tokens": {"pad_token": "<|pad|>", "eos_token": "<|im_end|>"}},
    {"special_tokens": {"additional_special_tokens": ["<|im_start|>"]}, "tokens": ["<new>", "a"]},
    {"chat_template": "chatml", "default_system_message": "Be brief."},
]


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("more", CONFIGURED)
def test_the_tokenizer_is_the_one_that_axolotl_loads(
    tmp_path: Path, kind: str, more: dict[str, Any]
) -> None:
    folder = tmp_path / kind
    MAKERS[kind](folder)
    cfg = {
        "base_model": str(folder),
        "base_model_config": str(folder),
        "tokenizer_config": str(folder),
        **more,
    }
    theirs = load_tokenizer(DictDefault(cfg))
    for _ in range(2):  # read, and kept
        ours = tokenizer.load(folder, more, tmp_path / "kept")
        assert ours is not None
        assert json.loads(ours.backend) == json.loads(theirs.backend_tokenizer.to_str())
        assert (ours.bos_id, ours.eos_id, ours.special) == (
            theirs.bos_token_id,
            theirs.eos_token_id,
            theirs.special_tokens_map,
        )
        wanted = {"type": "chat_template"}
        assert templates.source(wanted, cfg, ours) == theirs.chat_template


# --- other people's rows --------------------------------------------------------------------


def shared(name: str) -> list[dict[str, Any]]:
    path = rows_made.DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return rows_made.jsonl(path)


def test_gsm8k_and_the_chats_of_fms_become_what_axolotl_makes(
    tokenizers: dict[str, tuple[Any, Backend]], dice: random.Random, seed: int
) -> None:
    asked = shared("gsm8k_train.jsonl") + shared("gsm8k_test.jsonl")
    asked = asked if DRILL else dice.sample(asked, 200)
    complaints = shared("fms/twitter_complaints_small.jsonl")
    for kind, pair in tokenizers.items():
        config = {"sequence_len": 512}
        counted = 0
        for rows, keys in (
            (asked, {"type": "alpaca_chat.load_qa"}),
            (
                [{"instruction": r["question"], "output": r["answer"]} for r in asked],
                {"type": "alpaca"},
            ),
            ([{"text": r["question"] + r["answer"]} for r in asked], {"type": "completion"}),
            (
                complaints,
                {
                    "type": {
                        "field_instruction": "Tweet text",
                        "field_output": "text_label",
                        "format": "{instruction} {input}",
                        "no_input_format": "{instruction}",
                    }
                },
            ),
        ):
            found = list(differences(rows, keys, config, pair))
            assert not found, (kind, keys, found[:2])
            counted += len(rows)
        print(kind, counted, "rows of questions, texts and complaints: all equal")
    turns = [
        {
            "messages": [
                {"role": "user", "content": r["question"]},
                {"role": "assistant", "content": r["answer"]},
            ]
        }
        for r in (dice.sample(asked, 200) if DRILL else asked[:20])
    ]
    chats = [*turns, *shared("fms/single_turn_chat.jsonl"), *shared("fms/multi_turn_chat.jsonl")]
    for name in some(TEMPLATES, 4, seed):
        for kind, pair in tokenizers.items():
            found = list(
                differences(chats, {"type": "chat_template", "chat_template": name}, {}, pair)
            )
            assert not found, (kind, name, found[:2])
            print(name, kind, len(chats), "chats: all equal")

"""Rows of text that are laid out by a template and masked by a mark, and a training on them."""

import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from envtune.data.marks import Layout
from envtune.engine.rows import RowStrategy, load
from tests.harness import Entrypoint, losses, read

MASKED = -100
MARK = "### Answer:"


@pytest.fixture(scope="session")
def tokenizer(embedded: Path) -> PreTrainedTokenizerBase:
    """The embedded model's byte-level BPE."""
    return AutoTokenizer.from_pretrained(embedded / "tiny-llama")


class Configured:
    response_template, instruction_template, sequence_len = "=\n", None, 64


def tokenize(
    tokenizer: PreTrainedTokenizerBase, row: Mapping[str, Any], length: int = 512, **layout: Any
) -> tuple[dict[str, list[int]], str]:
    """A row's tokens, and the text of those that are trained, without the end."""
    made = RowStrategy(Layout(**layout), tokenizer, length).tokenize_prompt(row)
    assert len(made["input_ids"]) == len(made["labels"]) == len(made["attention_mask"]) <= length
    kept = [label for label in made["labels"] if label != MASKED]
    assert kept == [
        i for i, label in zip(made["input_ids"], made["labels"], strict=True) if label != MASKED
    ]
    return made, tokenizer.decode([i for i in kept if i != tokenizer.eos_token_id])


@pytest.mark.parametrize(
    ("text", "mark", "trained"),
    [
        (f"Name a city. {MARK} Rome", MARK, " Rome"),
        (f"Name a city.\n{MARK}\nRome\n", f"{MARK}\n", "Rome\n"),
        ("question Answer: capital", "Answer: ", "capital"),  # one token could hold both
        ("cap=Rome", "=", "Rome"),
        ("Zürich 城市 = 東京 🗼 ñ", "=", " 東京 🗼 ñ"),
        ("a = def f():\n        return 1   ", "=", " def f():\n        return 1   "),
        ("a.*b(c) x", ".*b(", "c) x"),
        ("a = b = c", "=", " c"),
        ("a =", "=", ""),
    ],
)
def test_what_follows_the_last_mark_is_trained_and_nothing_else(
    tokenizer: PreTrainedTokenizerBase, text: str, mark: str, trained: str
) -> None:
    made, found = tokenize(tokenizer, {"text": text}, response=mark)
    assert found == trained
    assert made["input_ids"][-1] == made["labels"][-1] == tokenizer.eos_token_id


def test_an_answer_begins_where_a_prompt_would_end(
    tokenizer: PreTrainedTokenizerBase, dice: random.Random
) -> None:
    """Words of the vocabulary around marks of random pieces, where one token could hold the ends
    of both: a server is given the prompt alone, and has to make the same tokens of it."""
    words = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    words = [w for w in words if w.isprintable() and w.strip() and "�" not in w and "<" not in w]
    for _ in range(300):
        mark = "".join(dice.choices(words, k=2))
        before, after = ("".join(dice.choices(words, k=6)) for _ in range(2))
        text = before + mark + after
        start = text.rindex(mark) + len(mark)
        made, found = tokenize(tokenizer, {"text": text}, response=mark)
        assert found == text[start:]
        prompt = tokenizer(text[:start])["input_ids"]
        assert made["input_ids"][: len(prompt)] == prompt
        assert made["labels"][: len(prompt)] == [MASKED] * len(prompt)


@pytest.mark.parametrize(
    ("text", "trained"),
    [
        ("Q: a A: b Q: c A: d", " b  d"),
        ("Q: a A: b Q: c", " b "),
        ("A: b", " b"),
    ],
)
def test_between_two_marks_every_answer_is_trained(
    tokenizer: PreTrainedTokenizerBase, text: str, trained: str
) -> None:
    made, found = tokenize(tokenizer, {"text": text}, response="A:", instruction="Q:")
    assert found == trained
    ends = made["labels"][-1] == tokenizer.eos_token_id
    assert ends == (not text.endswith("c"))


def test_without_a_mark_the_whole_text_is_trained(tokenizer: PreTrainedTokenizerBase) -> None:
    made, found = tokenize(tokenizer, {"text": "a b"})
    assert found == "a b"
    assert made["labels"][-1] == tokenizer.eos_token_id


def test_a_row_is_laid_out_by_a_template_with_columns_of_any_name(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    layout = {"input_format": "T: {{Tweet text}} {{ ID }}\nL: {{text_label}}", "response": "L:"}
    row = {"Tweet text": "{{ID}} late", "ID": 7, "text_label": None}
    assert Layout(**layout).text(row) == "T: {{ID}} late 7\nL: "
    _, found = tokenize(tokenizer, {**row, "text_label": "complaint"}, **layout)
    assert found == " complaint"
    _, found = tokenize(tokenizer, {**row, "text_label": "a L: b"}, **layout)
    assert found == " a L: b", "a mark in a column is none"


@pytest.mark.parametrize(
    ("known", "end"), [(True, "<|im_end|>"), (False, "")], ids=["a token", "cut into letters"]
)
def test_an_end_of_turn_is_one_token_or_the_end_of_the_text(
    embedded: Path, known: bool, end: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded / "tiny-llama")
    if known:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    strategy = load(tokenizer, Configured(), {"input_format": "{{a}} =\n{{b}}\n<|im_end|>\n"})
    made = strategy.tokenize_prompt({"a": "x", "b": "y"})
    last = [i for i in made["labels"] if i != MASKED]
    assert tokenizer.decode(last) == f"y{end}{tokenizer.eos_token}"
    assert len(last) == 2 + known


def test_a_long_row_is_cut_and_has_no_end(tokenizer: PreTrainedTokenizerBase) -> None:
    row = {"text": f"{MARK} " + "city " * 200}
    made, _ = tokenize(tokenizer, row, 32, response=MARK)
    assert len(made["input_ids"]) == 32
    assert tokenizer.eos_token_id not in made["input_ids"]


def test_an_end_that_the_text_has_is_not_doubled(tokenizer: PreTrainedTokenizerBase) -> None:
    text = f"a {MARK} b{tokenizer.eos_token}"
    made, _ = tokenize(tokenizer, {"text": text}, response=MARK)
    assert made["input_ids"].count(tokenizer.eos_token_id) == 1
    assert made["labels"][-1] == tokenizer.eos_token_id


def test_an_end_that_the_tokenizer_adds_is_trained_too(embedded: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = AutoTokenizer.from_pretrained(embedded / "tiny-llama")
    end = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.eos_token_id)]
    )
    made, found = tokenize(tokenizer, {"text": f"a {MARK} b"}, response=MARK)
    assert found == " b"
    assert made["input_ids"].count(tokenizer.eos_token_id) == 1
    assert made["labels"][-1] == tokenizer.eos_token_id


@pytest.mark.parametrize(
    ("row", "layout", "told"),
    [
        ({"text": "no mark"}, {"response": MARK}, f"a row has no response_template '{MARK}': 'no"),
        ({"txt": "a", "b": 1}, {}, "a row has no column 'text'; it has txt, b"),
        ({"a": 1}, {"input_format": "{{a}} {{b}}"}, "a row has no column 'b'; it has a"),
    ],
)
def test_a_row_that_cannot_be_read_is_shown(
    tokenizer: PreTrainedTokenizerBase, row: dict[str, Any], layout: dict[str, Any], told: str
) -> None:
    with pytest.raises(ValueError) as caught:
        tokenize(tokenizer, row, **layout)
    assert str(caught.value).startswith(told)


def test_an_error_shows_the_beginning_of_a_long_row_only() -> None:
    with pytest.raises(ValueError) as caught:
        Layout(response=MARK).trained("x" * 10_000)
    assert len(str(caught.value)) < 200


def _rows(folder: Path, name: str, count: int) -> str:
    """Rows that a tiny model can learn, as JSON lines."""
    lines = [{"output": f"Which number comes after {n}? {MARK} {n + 1}"} for n in range(count)]
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def _trainer(folder: Path, embedded: Path, **more: Any) -> dict[str, str]:
    """The SFT trainer's JSON in a file, as the variable that names it."""
    document = {
        "model_name_or_path": str(embedded / "tiny-llama"),
        "training_data_path": _rows(folder, "train.jsonl", 96),
        "validation_data_path": _rows(folder, "held.jsonl", 8),
        "response_template": MARK,
        "dataset_text_field": "output",
        "peft_method": "lora",
        "r": 8,
        "target_modules": ["all-linear"],
        "max_seq_length": 64,
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-2,
        "eval_strategy": "epoch",
        "use_flash_attn": False,
        "torch_dtype": "float32",
        **more,
    }
    path = folder / "trainer.json"
    path.write_text(json.dumps(document))
    return {"SFT_TRAINER_CONFIG_JSON_PATH": str(path)}


def test_the_trainers_json_trains_and_evaluates(tmp_path: Path, embedded: Path) -> None:
    run = Entrypoint(tmp_path, _trainer(tmp_path, embedded)).train()
    values = [loss for _, loss, _ in losses(run)]
    assert sum(values[-3:]) < 0.7 * sum(values[:3])
    evaluated = [json.loads(x) for x in (run / "eval/metrics.jsonl").read_text().splitlines()]
    assert evaluated[-1]["eval_loss"] < evaluated[0]["eval_loss"]
    assert (run / "adapter" / "adapter_model.safetensors").exists()
    assert read(run / "run.json")["resolved"]["axolotl"]["response_template"]["value"] == MARK


def test_a_row_without_the_mark_ends_the_run_and_is_shown(tmp_path: Path, embedded: Path) -> None:
    settings = _trainer(tmp_path, embedded)
    with (tmp_path / "train.jsonl").open("a") as stream:
        stream.write('{"output": "an odd row without it"}\n')
    result = Entrypoint(tmp_path, settings).run()
    assert result.code == 3
    [line] = [line for line in result.lines if "an odd row without it" in line]
    assert "response_template" in line
    assert MARK in line

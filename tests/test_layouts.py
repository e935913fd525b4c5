"""Layouts: what a server makes of a chat is what training made of the row, token for token."""

import copy
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from axolotl.utils.dict import DictDefault
from datasets import Dataset
from jinja2 import TemplateError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, LlamaTokenizerFast, PreTrainedTokenizerBase

from envtune.artifacts import layouts
from envtune.artifacts.layouts import Told
from envtune.engine.layouts import found, samples, written
from envtune.engine.layouts.found import Found
from envtune.engine.layouts.layout import Layout
from envtune.resolve.turns import ENDS
from envtune.serve.conversations import Proof, judge

# What rows have in them that layouts, templates and tokenizers stumble over.
HOSTILE = (
    "plain words", "{braces} and {{ jinja }} {% raw %}", "a\r\nb\rc", "🗼 emoji 👩‍👩‍👧 東京 ñ",
    " outer spaces ", "\n\nnewlines around\n", "<s>begins", "ends</s>", "<|end|>", "a <|user|> b",
    "it's a \\ and a ' and \"quotes\"", "7 first", "(bracket", "### Response:\nin the text", "\ttab",
    "Human: me\n\nAssistant: ", "e\u0301 and \u00e9", "▁under", "a" * 300, "<|im_end|>", ".", "None",
)  # fmt: skip
PROMPT = {
    "field_instruction": "prompt", "field_output": "completion", "format": "{instruction}",
    "no_input_format": "{instruction}",
}  # fmt: skip
PAIR = {
    "field_instruction": "instruction", "field_output": "output", "field_input": "input",
    "format": "Q: {instruction}\nC: {input}\nA:", "no_input_format": "Q: {instruction}\nA:",
    "system_prompt": "Be brief.", "system_format": "{system}\n",
}  # fmt: skip
ROWS = "envtune.engine.rows"
# The source's four templates, as its data sets are laid out.
TEMPLATES = {
    "s5 chatml": ("<|im_start|>user\n{{prompt}}\n<|im_end|>\n<|im_start|>assistant\n{{completion}}\n<|im_end|>", "<|im_start|>assistant\n"),
    "s5 instruct": ("### Instruction:\n{{prompt}}\n\n### Response:\n{{completion}}", "### Response:\n"),
    "s5 chat": ("Human: {{prompt}}\n\nAssistant: {{completion}}", "Assistant: "),
    "s5 alpaca": ("Do it.\n\n### Instruction:\n{{prompt}}\n\n### Response:\n{{completion}}", "### Response:\n"),
    "columns": ("{{a b}} of {{prompt}}\nL: {{completion}}", "L:"),
}  # fmt: skip
TYPES: dict[str, Any] = {
    **{kind: kind for kind in (
        "alpaca", "alpaca:chat", "alpaca:chatml", "alpaca:phi", "alpaca_chat.load_qa",
        "alpaca_chat.load_concise", "alpaca_w_system", "alpaca_w_system.load_instruct",
        "alpaca_w_system.load_open_orca", "alpaca_instruct.load_no_prompt", "input_output",
        "context_qa", "context_qa.load_v2", "jeopardy", "orcamini", "metharme", "oasst",
        "gpteacher", "summarizetldr", "creative_acr.load_answer",
    )},
    "prompt and completion": PROMPT, "user's own": PAIR,
    "question and answer": PROMPT | {"field_instruction": "question", "field_output": "answer"},
    **dict.fromkeys(TEMPLATES, ROWS), "marked": ROWS,
}  # fmt: skip
CHATS = (
    "chatml", "llama3", "qwen3", "alpaca", "mistral_v1", "phi_3", "gemma", "deepseek_v2",
    "exaone4", "falcon_h1", "jamba", "aya", "metharme", "gemma3", "phi_4", "qwen_25",
)  # fmt: skip
# These write a space before an answer, which not every answer takes into its first token.
SPACED = ("mistral_v1", "jamba")


def rows(kind: str, end: str, dice: random.Random) -> list[dict[str, Any]]:
    """Hostile rows with a column for every name that a type reads."""
    made = []
    for asked in HOSTILE:
        other, system, answer = dice.choice(HOSTILE), dice.choice(HOSTILE), dice.choice(HOSTILE)
        if kind == "input_output":
            made.append(
                {
                    "segments": [
                        {"label": False, "text": asked},
                        {"label": True, "text": f"{answer}{end}"},
                    ]
                }
            )
        elif kind == "marked":
            made.append({"text": f"{asked.replace('A:', '')}A:{answer.replace('A:', '')}"})
        else:
            made.append(_row(kind, asked, dice.choice(["", other]), system, answer))
    return made


def _row(kind: str, asked: str, other: str, system: str, answer: str) -> dict[str, Any]:
    questions = ("instruction", "prompt", "question", "INSTRUCTION")
    answers = (
        "output",
        "completion",
        "answer",
        "RESPONSE",
        "response",
        "generation",
        "revision",
        "summary",
    )
    row = dict.fromkeys(questions, asked) | dict.fromkeys(answers, answer)
    row |= {"article": asked if kind == "summarizetldr" else other or "x", "context": other or "x"}
    row |= {"input": other, "category": other, "a b": other or "x"}
    if "w_system" in kind or kind in ("orcamini", "user's own"):
        row |= {"system": system, "system_prompt": system}
    return row


def chats(dice: random.Random) -> list[dict[str, Any]]:
    made = []
    for asked in HOSTILE:
        turns = [("user", asked), ("assistant", dice.choice(HOSTILE))]
        if dice.random() < 0.4:
            turns += [("user", dice.choice(HOSTILE)), ("assistant", dice.choice(HOSTILE))]
        made.append({"messages": [{"role": role, "content": text} for role, text in turns]})
    return made


def _byte_level(embedded: Path, *, begins: bool) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(embedded / "tiny-llama")
    if begins:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{tokenizer.bos_token} $A",
            special_tokens=[(tokenizer.bos_token, tokenizer.bos_token_id)],
        )
    return tokenizer


def _sentences(folder: Path) -> PreTrainedTokenizerBase:
    """A tokenizer that glues a space before the first word, as SentencePiece does."""
    cutter = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    cutter.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    cutter.decoder = decoders.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    texts = [word for text in HOSTILE for word in text.split()] * 3
    cutter.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=700, special_tokens=special))
    plain = json.loads(cutter.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if token["id"] < 3]
    tokenizer = LlamaTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(plain)), bos_token="<s>", eos_token="</s>",
        unk_token="<unk>", add_bos_token=True,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizers(
    embedded: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, PreTrainedTokenizerBase]:
    return {
        "no beginning": _byte_level(embedded, begins=False),
        "a beginning": _byte_level(embedded, begins=True),
        "sentences": _sentences(tmp_path_factory.mktemp("sentences")),
    }


def config(name: str, kind: Any, **more: Any) -> tuple[DictDefault, DictDefault]:
    """The configuration of a type, and its data set."""
    told, dataset = {"sequence_len": 2048, "train_on_inputs": True, "seed": 1, **more}, {}
    if name in TEMPLATES:
        dataset["input_format"], told["response_template"] = TEMPLATES[name]
    elif name == "marked":
        told["response_template"] = "A:"
    return DictDefault(told), DictDefault({"path": "x", "type": kind, **dataset})


def served(layout: Layout, request: Mapping[str, Any], tokenizer: Any) -> list[int]:
    """The ids of a request as vLLM makes them: rendered, and cut without what is added."""
    text = tokenizer.apply_chat_template(
        request["messages"], chat_template=layout.template, tokenize=False,
        add_generation_prompt=True, **request.get("chat_template_kwargs", {}),
    )  # fmt: skip
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def proof(made: Found, data: Sequence[Mapping[str, Any]], tokenizer: Any, cfg: Any) -> Proof:
    """What the rows say of a layout, each asked for as a chat."""
    asked = samples.requests(made, Dataset.from_list(list(data)), tokenizer, cfg)
    assert len(asked) == len(data), f"{len(data) - len(asked)} rows cannot be asked for"
    assert all(request["ends"] for request in asked)
    return judge((request, served(made.layout, request, tokenizer)) for request in asked)


@pytest.mark.parametrize("which", ["no beginning", "a beginning", "sentences"])
@pytest.mark.parametrize("name", TYPES)
def test_a_chat_becomes_the_prompt_of_its_row(
    name: str, which: str, tokenizers: dict[str, Any], dice: random.Random
) -> None:
    tokenizer = tokenizers[which]
    data = rows(name, tokenizer.eos_token, dice)
    cfg, dataset = config(name, TYPES[name])
    made = found.of(cfg, dataset, tokenizer, list(data[0]))
    assert made.layout.chat, made.layout.reason
    assert proof(made, data, tokenizer, cfg) == Proof(len(data))


@pytest.mark.parametrize("which", ["no beginning", "a beginning", "sentences"])
@pytest.mark.parametrize("template", CHATS)
def test_a_chat_template_is_served_as_it_was_trained(
    template: str, which: str, tokenizers: dict[str, Any], dice: random.Random
) -> None:
    tokenizer, data = copy.deepcopy(tokenizers[which]), chats(dice)
    end = ENDS.get(template)
    tokenizer.add_special_tokens({"additional_special_tokens": [end] if end else []})
    more = {"eot_tokens": [end]} if end else {}
    cfg, dataset = config(template, "chat_template", chat_template=template, **more)
    made = found.of(cfg, dataset, tokenizer, ["messages"])
    proved = proof(made, data, tokenizer, cfg)
    assert not proved.wrong
    assert proved.near == 0 or template in SPACED


def test_a_row_that_is_laid_out_otherwise_is_named_with_its_first_token(
    tokenizers: dict[str, Any], dice: random.Random
) -> None:
    tokenizer, data = tokenizers["a beginning"], rows("alpaca", "", dice)
    cfg, dataset = config("alpaca", "alpaca")
    made = found.of(cfg, dataset, tokenizer, list(data[0]))
    other = found.of(cfg, DictDefault({"type": "alpaca:chat"}), tokenizer, list(data[0])).layout
    [request] = samples.requests(made, Dataset.from_list(data[:1]), tokenizer, cfg)
    ids = served(other, request, tokenizer)
    at = next(i for i, (a, b) in enumerate(zip(ids, request["ids"], strict=False)) if a != b)
    wrong = judge([(request, ids)]).wrong
    expected = f"token {at + 1} is {ids[at]} where training had {request['ids'][at]}"
    assert wrong == f"row 0 ('plain words'): {expected}"
    assert "the answer" in judge([(request, [*request["ids"][: request["starts"][0]], 7])]).wrong
    assert "is nothing" in judge([(request, request["ids"][:3])]).wrong


REFUSED: list[tuple[str, list[dict[str, str]], dict[str, Any], str]] = [
    ("alpaca", [{"role": "system", "content": "a"}], {}, "no system message was trained"),
    ("alpaca", [{"role": "assistant", "content": "a"}], {}, "no conversation of several turns"),
    ("alpaca", [{"role": "user", "content": "a"}] * 2, {}, "no conversation of several turns"),
    ("alpaca", [], {"tools": [{"type": "function"}]}, "no tools were trained"),
    ("context_qa", [], {}, "every row had article: name it in chat_template_kwargs"),
    ("completion", [], {}, "raw text was trained, and no chat (completion): send the whole prompt as text to /v1/completions"),
    ("explainchoice", [], {}, "laid out by code (explainchoice): send"),
    ("reflection", [], {}, "not one prompt with one answer"),
    ("pygmalion", [], {}, "laid out by code"),
    ("llama2_chat", [], {}, "laid out by code"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "before", "more", "words"), REFUSED)
def test_what_was_not_trained_is_refused_in_words(
    kind: str, before: list[dict[str, str]], more: dict[str, Any], words: str,
    tokenizers: dict[str, Any],
) -> None:  # fmt: skip
    cfg, dataset = config(kind, kind)
    layout = found.of(cfg, dataset, tokenizers["a beginning"]).layout
    messages = [*before, {"role": "user", "content": "b"}]
    with pytest.raises(TemplateError, match=re.escape(words)):
        tokenizers["a beginning"].apply_chat_template(
            messages, chat_template=layout.template, tokenize=False, **more
        )


def test_an_input_is_a_second_message_or_named(tokenizers: dict[str, Any]) -> None:
    tokenizer = tokenizers["a beginning"]
    cfg, dataset = config("alpaca", "alpaca")
    layout = found.of(cfg, dataset, tokenizer).layout
    asked = [{"role": "user", "content": "a"}]
    named = served(layout, {"messages": asked, "chat_template_kwargs": {"input": "b"}}, tokenizer)
    assert (
        served(layout, {"messages": [*asked, {"role": "user", "content": "b"}]}, tokenizer) == named
    )
    assert "### Input:\nb" in tokenizer.decode(named)


def test_rows_of_several_prompts_are_no_chat(tokenizers: dict[str, Any], tmp_path: Path) -> None:
    parts = [
        {"label": False, "text": "a"},
        {"label": False, "text": "b"},
        {"label": True, "text": "c"},
    ]
    assert _written(tmp_path, tokenizers, [("input_output", [{"segments": parts}])]).reason
    assert not _written(tmp_path, tokenizers, [("input_output", [{"segments": parts[1:]}])]).reason


def test_of_two_layouts_the_larger_is_served_or_the_one_that_is_named(
    tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    row = {"instruction": "a", "output": "b", "text": "c"}
    sets = [("alpaca", [row] * 3), ("alpaca:chat", [row] * 4)]
    told = _written(tmp_path, tokenizers, sets)
    assert (told.name, told.others) == ("alpaca:chat", [f"alpaca ({tmp_path / '0.jsonl'})"])
    for wanted in ("0", "0.jsonl", "alpaca", str(tmp_path / "0.jsonl")):
        assert _written(tmp_path, tokenizers, sets, wanted).name == "alpaca"


def test_a_training_whose_answers_would_never_end_is_refused(
    tokenizers: dict[str, Any], tmp_path: Path
) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    with pytest.raises(ValueError, match="no label holds the end of a turn"):
        _written(tmp_path, tokenizers, [("chat_template", [chat])], chat_template="chatml")
    _written(tmp_path, tokenizers, [("chat_template", [chat])], chat_template="alpaca")


def _written(
    folder: Path, tokenizers: dict[str, Any], sets: list[tuple[str, list[dict[str, Any]]]],
    wanted: str = "", **more: Any,
) -> Told:  # fmt: skip
    """What a training writes of data sets of these types and rows."""
    datasets = []
    for number, (kind, lines) in enumerate(sets):
        path = folder / f"{number}.jsonl"
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        datasets.append({"path": str(path), "type": kind, "ds_type": "json"})
    cfg = DictDefault({"datasets": datasets, "sequence_len": 256, **more})
    (folder / "config").mkdir(exist_ok=True)
    written.write(cfg, tokenizers["a beginning"], folder / "config", wanted)
    told = layouts.read(folder)
    assert told is not None
    return told

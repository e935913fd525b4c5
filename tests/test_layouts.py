"""Layouts: what a server makes of a chat is what training made of the row, token for token."""

import copy
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from axolotl.utils.dict import DictDefault
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, LlamaTokenizerFast, PreTrainedTokenizerBase

from envtune.engine.layouts import found, samples
from envtune.engine.layouts.found import Found
from envtune.engine.layouts.layout import Layout
from envtune.resolve.turns import ENDS

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
    "exaone4", "falcon_h1", "jamba", "aya", "metharme", "llava",
)  # fmt: skip


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


def unequal(made: Found, data: Sequence[Mapping[str, Any]], tokenizer: Any, cfg: Any) -> list[Any]:
    """The requests that are laid out otherwise than their rows."""
    asked = samples.requests(made, Dataset.from_list(list(data)), tokenizer, cfg)
    assert len(asked) == len(data), f"{len(data) - len(asked)} rows cannot be asked for"
    assert all(request["ends"] for request in asked)
    wrong = []
    for request in asked:
        ids = served(made.layout, request, tokenizer)
        if ids not in [request["ids"][:start] for start in request["starts"]]:
            wrong.append(
                (
                    request["messages"],
                    tokenizer.convert_ids_to_tokens(ids[-12:]),
                    tokenizer.convert_ids_to_tokens(request["ids"][: request["starts"][-1]][-12:]),
                )
            )
    return wrong


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
    assert unequal(made, data, tokenizer, cfg) == []


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
    assert unequal(made, data, tokenizer, cfg) == []

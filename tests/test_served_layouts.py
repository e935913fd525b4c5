"""A model that knows its rows by heart says them through the chat route of the real server.

DRILL=1 trains and serves every layout, and renders all of them by every tokenizer; `make
drill-layouts` does, and counts.
"""

import json
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_from_disk
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.harness import ROOT, SHARED, Entrypoint, clean_environ, execute, free_port, read
from tests.test_layouts import (
    HOSTILE,
    TEMPLATES,
    TYPES,
    config,
    found,
    rows,
    samples,
    tokenizers,  # noqa: F401  # a fixture
)
from tests.test_serving import KEY, Served

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv-serve" / "bin" / "python").exists(),
    reason="there is no serve environment; `make setup-serve` makes it",
)
DRILL = bool(os.environ.get("DRILL"))
WORDS = "Paris Rome Madrid Vienna Berlin Lisbon Oslo Athens Dublin Prague"
PAIRS = [
    (f"What is {n} plus {n + 1}? {word}", f"{2 * n + 1} is the sum, {word}.")
    for n, word in enumerate(WORDS.split() * 2)
]
# Beside the pairs: what layouts and tokenizers stumble over, of a length that is soon learned.
ODD = [text for text in HOSTILE if len(text) < 100]
ODD += [f"{one} {other}" for one, other in zip(ODD, ODD[9:], strict=False)][: 30 - len(ODD)]
ROWS = [*PAIRS, *zip(ODD, random.Random(0).choices(HOSTILE[:-6], k=len(ODD)), strict=True)]
HEART = {
    "AXOLOTL_ADAPTER": "null", "AXOLOTL_LEARNING_RATE": "4e-3", "AXOLOTL_NUM_EPOCHS": "40",
    "AXOLOTL_MICRO_BATCH_SIZE": "25", "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "1",
    "AXOLOTL_SEQUENCE_LEN": "512",
    "AXOLOTL_SAVE_STRATEGY": "no", "SFT_SERVE": "true", "VLLM_API_KEY": KEY,
}  # fmt: skip


@pytest.fixture(scope="module")
def ending(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that has ChatML's end of turn as a token, and ends a text with another."""
    folder = tmp_path_factory.mktemp("ending") / "base"
    shutil.copytree(embedded / "tiny-llama", folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


Row = Callable[[str, str], dict[str, Any]]


def _columns(asked: str, answered: str) -> Row:
    return lambda question, answer: {asked: question, answered: answer}


def _turns(question: str, answer: str) -> dict[str, Any]:
    turns = (("user", question), ("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def _template(name: str) -> tuple[dict[str, Any], dict[str, str], Row]:
    """A template of the source's with its mark."""
    laid_out, mark = TEMPLATES[name]
    masked = {"AXOLOTL_RESPONSE_TEMPLATE": mark}
    return {"input_format": laid_out}, masked, _columns("prompt", "completion")


# What is said of the data set, what else is set, and how a question and its answer are a row.
CASES: dict[str, tuple[dict[str, Any], dict[str, str], Row]] = {
    "the mark ends in a space": _template("s5 chat"),
    "chatml": ({"type": "chat_template"}, {"AXOLOTL_CHAT_TEMPLATE": "chatml"}, _turns),
    "instruct": _template("s5 instruct"),
    "alpaca": _template("s5 alpaca"),
    "prompt and completion": ({}, {}, _columns("prompt", "completion")),
    "the model's own template": ({}, {}, _turns),
    "question and answer": ({}, {}, _columns("question", "answer")),
}
ALWAYS = ("the mark ends in a space", "chatml")


@pytest.fixture(scope="module", params=CASES if DRILL else ALWAYS)
def learned(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    forking: dict[str, str],
    ending: Path,
) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("learned"), free_port()
    dataset, more, row = CASES[request.param]
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row(*one)) + "\n" for one in ROWS))
    told = {"path": str(path), **dataset}
    base = {name: text for name, text in settings.items() if "DATASETS" not in name}
    own = {
        **HEART, **more, "AXOLOTL_BASE_MODEL": str(ending), "SFT_SERVE_PORT": str(port),
        "AXOLOTL_DATASETS": json.dumps([told]),
    }  # fmt: skip
    found = Served(Entrypoint(folder, base | forking), port, own)
    yield found
    found.end()


def _asked(learned: Served, question: str, most: int = 64) -> Any:
    """The answer to a chat of one message, with the ids of its prompt."""
    body = {"model": learned.run.name, "temperature": 0, "max_tokens": most,
            "messages": [{"role": "user", "content": question}], "return_token_ids": True}  # fmt: skip
    with learned.client() as client:
        return client.post("/v1/chat/completions", json=body).json()


def test_what_was_learned_by_heart_is_said_to_a_chat_and_stops(learned: Served) -> None:
    said = [_asked(learned, question)["choices"][0] for question, _ in PAIRS]
    texts = [choice["message"]["content"] for choice in said]
    right = sum(text == answer for text, (_, answer) in zip(texts, PAIRS, strict=True))
    ended = sum(choice["finish_reason"] == "stop" for choice in said)
    print(f"{right} of {len(PAIRS)} exact, {ended} end by themselves")
    assert right >= 18, texts
    assert ended >= 18


def test_a_chat_has_the_tokens_of_its_row_up_to_the_answer(learned: Served) -> None:
    """The rows are those that were handed to the training."""
    trained = Counter[tuple[int, ...]]()
    for row in load_from_disk(f"{read(learned.run / 'data/prepared.json')['folder']}/train"):
        start = next(i for i, label in enumerate(row["labels"]) if label != -100)
        trained[tuple(row["input_ids"][:start])] += 1
    made = Counter(tuple(_asked(learned, asked, 1)["prompt_token_ids"]) for asked, _ in ROWS)
    print(f"{(made & trained).total()} of {trained.total()} prompts are those of the rows")
    assert made == trained
    assert trained.total() == 50


def test_what_was_not_trained_is_refused_in_words(learned: Served) -> None:
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
    with learned.client() as client:
        question = {"model": learned.run.name, "messages": turns, "max_tokens": 1}
        answer = client.post("/v1/chat/completions", json=question)
    several = read(learned.run / "config" / "layout.json")["name"].startswith("chat")
    assert answer.status_code == (200 if several else 400)
    assert several or "no conversation of several turns" in answer.json()["error"]["message"]
    smoke = learned.verb("smoke-test")
    assert smoke.code == 0, smoke.err
    assert "rows asked as chats have their training's tokens; 8 of 8 answers end" in smoke.err


def _requests(tokenizer: Any, kinds: list[str], dice: random.Random) -> list[dict[str, Any]]:
    """Six rows of each layout as chats, with the ids that Axolotl's code makes of each."""
    asked = []
    for name in kinds:
        data = dice.sample(rows(name, tokenizer.eos_token, dice), 6)
        cfg, dataset = config(name, TYPES[name])
        made = found.of(cfg, dataset, tokenizer, list(data[0]))
        for request in samples.requests(made, Dataset.from_list(data), tokenizer, cfg):
            asked.append({**request, "chat_template": made.layout.template})
    return asked


MADE = ("no beginning", "a beginning", "sentences")
REAL = "a Llama's"


@pytest.fixture(params=(*MADE, REAL))
def model(request: pytest.FixtureRequest, embedded: Path, tmp_path: Path, seed: int) -> Path:
    """A folder with a tokenizer, and as much of a model as a renderer needs. Without a drill the
    first one and another."""
    which, base, folder = request.param, embedded / "tiny-llama", tmp_path / request.param
    if not DRILL and which not in (MADE[0], random.Random(seed).choice(MADE[1:])):
        pytest.skip("a seed chooses one of the others; DRILL=1 takes all")
    if which == REAL and not (SHARED / "llama-tokenizer").is_dir():
        pytest.skip("there is no tokenizer of a Llama's beside the checkout")
    if which == MADE[0]:
        return base
    shutil.copytree(base, folder, ignore=shutil.ignore_patterns("*token*"))
    real = which == REAL
    made = (
        AutoTokenizer.from_pretrained(SHARED / "llama-tokenizer")
        if real
        else request.getfixturevalue("tokenizers")[which]
    )
    made.save_pretrained(folder)
    return folder


def test_vllms_own_renderer_makes_the_rows_tokens_of_chats(
    model: Path, tmp_path: Path, dice: random.Random
) -> None:
    """In one process of vLLM's; the ids of transformers are proved beside it. Every layout by one
    tokenizer, and without a drill a few of them by another."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    every = DRILL or model.name == "tiny-llama"
    kinds = list(TYPES) if every else dice.sample(list(TYPES), 6)
    asked = _requests(tokenizer, kinds, dice)
    order = {"flags": {"model": str(model), "trust-request-chat-template": ""}, "rows": asked,
             "answers": str(tmp_path / "answers.json")}  # fmt: skip
    (tmp_path / "order.json").write_text(json.dumps(order))
    python = str(ROOT / ".venv-serve" / "bin" / "python")
    done = execute(
        [python, "-m", "envtune.engine.rendering", str(tmp_path / "order.json")],
        tmp_path, clean_environ(),
    )  # fmt: skip
    assert done.code == 0, done.err[-3000:]
    made = read(tmp_path / "answers.json")
    wrong = [r["messages"] for r, ids in zip(asked, made, strict=True)
             if ids not in [r["ids"][:start] for start in r["starts"]]]  # fmt: skip
    print(f"{model.name}: {len(asked)} requests in {len(kinds)} layouts")
    assert wrong == []

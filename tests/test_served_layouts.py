"""A model that knows its rows by heart says them through the chat route of the real server."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.harness import ROOT, Entrypoint, clean_environ, execute, free_port, read
from tests.test_layouts import TEMPLATES, TYPES, config, found, rows, samples
from tests.test_serving import KEY, Served

pytestmark = pytest.mark.skipif(
    not (ROOT / ".venv-serve" / "bin" / "python").exists(),
    reason="there is no serve environment; `make setup-serve` makes it",
)
WORDS = "Paris Rome Madrid Vienna Berlin Lisbon Oslo Athens Dublin Prague"
PAIRS = [
    (f"What is {n} plus {n + 1}? {word}", f"{2 * n + 1} is the sum, {word}.")
    for n, word in enumerate(WORDS.split() * 2)
]
HEART = {
    "AXOLOTL_ADAPTER": "null", "AXOLOTL_LEARNING_RATE": "4e-3", "AXOLOTL_NUM_EPOCHS": "40",
    "AXOLOTL_MICRO_BATCH_SIZE": "10", "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "1",
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


CASES: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "the mark ends in a space": (
        {"input_format": TEMPLATES["s5 chat"][0]},
        {"AXOLOTL_RESPONSE_TEMPLATE": TEMPLATES["s5 chat"][1]},
    ),
    "chatml": ({"type": "chat_template"}, {"AXOLOTL_CHAT_TEMPLATE": "chatml"}),
}


def _data(folder: Path, kind: str) -> str:
    """The pairs as the data set of a case wants them, in a file."""
    lines: list[dict[str, Any]] = [{"prompt": q, "completion": a} for q, a in PAIRS]
    if kind == "chatml":
        lines = [
            {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]}
            for q, a in PAIRS
        ]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.fixture(scope="module", params=CASES)
def learned(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    settings: dict[str, str],
    forking: dict[str, str],
    ending: Path,
) -> Iterator[Served]:
    folder, port = tmp_path_factory.mktemp("learned"), free_port()
    dataset, more = CASES[request.param]
    told = {"path": _data(folder, request.param), **dataset}
    base = {name: text for name, text in settings.items() if "DATASETS" not in name}
    own = {
        **HEART, **more, "AXOLOTL_BASE_MODEL": str(ending), "SFT_SERVE_PORT": str(port),
        "AXOLOTL_DATASETS": json.dumps([told]),
    }  # fmt: skip
    found = Served(Entrypoint(folder, base | forking), port, own)
    yield found
    found.end()


def test_what_was_learned_by_heart_is_said_to_a_chat_and_stops(learned: Served) -> None:
    said, ended = [], 0
    with learned.client() as client:
        for asked, _ in PAIRS:
            question = {"model": learned.run.name, "temperature": 0, "max_tokens": 64,
                        "messages": [{"role": "user", "content": asked}]}  # fmt: skip
            [choice] = client.post("/v1/chat/completions", json=question).json()["choices"]
            said.append(choice["message"]["content"])
            ended += choice["finish_reason"] == "stop"
    right = sum(text == answer for text, (_, answer) in zip(said, PAIRS, strict=True))
    print(f"{right} of {len(PAIRS)} exact, {ended} end by themselves")
    assert right >= 18, said
    assert ended >= 18


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


def test_vllms_own_renderer_makes_the_rows_tokens_of_chats(
    embedded: Path, tmp_path: Path, dice: Any
) -> None:
    """Every layout, in one process of vLLM's; the ids of transformers are proved beside it."""
    base = embedded / "tiny-llama"
    tokenizer = AutoTokenizer.from_pretrained(base)
    asked = []
    for name, kind in TYPES.items():
        data = dice.sample(rows(name, tokenizer.eos_token, dice), 6)
        cfg, dataset = config(name, kind)
        made = found.of(cfg, dataset, tokenizer, list(data[0]))
        for request in samples.requests(made, Dataset.from_list(data), tokenizer, cfg):
            asked.append({**request, "chat_template": made.layout.template})
    order = {"flags": {"model": str(base), "trust-request-chat-template": ""}, "rows": asked,
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
    print(f"{len(asked)} requests in {len(TYPES)} layouts")
    assert wrong == []

"""The evaluation as a stage of a run: what it measures, what it leaves, and how it fails."""

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from axolotl.utils.dict import DictDefault
from lm_eval.tasks import TaskManager
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
)

from envtune.checks import lm_eval_tasks
from envtune.engine.evaluate import generation, prompting
from envtune.engine.evaluate.benchmarks import Tasks
from envtune.errors import Refused
from envtune.settings.prompts import Prompt
from tests import forks
from tests.harness import Entrypoint, Result, clean_environ, execute, kill, read

ASKED = [
    "What is the capital of France?",
    {"instruction": "Name the opposite of hot.", "language": "en", "max_sentences": 1},
]
PAIRS = [
    {"prompt": "What colour is snow?", "reference": "Snow is white."},
    {"messages": [{"role": "user", "content": "Add 1 and 2."}], "references": ["1 plus 2 is 3."]},
]
TASK = """\
task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {rows}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: 0
"""


def lines(rows: list[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def evaluated(
    tmp_path_factory: pytest.TempPathFactory, settings: dict[str, str], forking: dict[str, str]
) -> Path:
    """The folder of a LoRA run with everything that can be measured."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "pairs.jsonl").write_text(lines(PAIRS))
    (folder / "tasks").mkdir()
    rows = [{"question": "What is the capital of Peru?", "choices": ["Lima", "coal"]}] * 3
    (folder / "rows.jsonl").write_text(lines(rows))
    (folder / "tasks" / "capitals.yaml").write_text(TASK.format(rows=folder / "rows.jsonl"))
    more = {
        "AXOLOTL_VAL_SET_SIZE": "0.1",
        "SFT_EVAL_PROMPTS": json.dumps(ASKED),
        "SFT_EVAL_PAIRS": "pairs.jsonl",
        "SFT_EVAL_GENERATION": '{"max_new_tokens": 24}',
        "SFT_EVAL_TASKS": "capitals",
        "SFT_EVAL_TASKS_PATH": "tasks",
        "SFT_EVAL_TASKS_LIMIT": "2",
    }
    return Entrypoint(folder, settings | more | forking).train()


@pytest.fixture(scope="module")
def results(evaluated: Path) -> dict[str, Any]:
    found: dict[str, Any] = read(evaluated / "eval" / "results.json")
    return found


Measure = Callable[..., tuple[Result, dict[str, Any]]]


@pytest.fixture
def measure(forking: dict[str, str]) -> Measure:
    """The engine's own doing in a run's folder: how it ended, and its results."""
    return partial(_measure, clean_environ(**forks.ENVIRON, **forking))


def _measure(
    environ: dict[str, str], run: Path, into: Path, **order: Any
) -> tuple[Result, dict[str, Any]]:
    artifact = "adapter" if (run / "adapter").is_dir() else "model"
    nothing: dict[str, Any] = {
        "prompts": [], "pairs": [], "generation": {}, "dataset": None,
        "tasks": [], "tasks_path": None, "tasks_limit": None,
    }  # fmt: skip
    whole = {**nothing, "config": "config/axolotl.yaml", "artifact": str(run / artifact)}
    whole |= {"results": str(into / "results.json"), **order}
    (into / "order.json").write_text(json.dumps(whole))
    command = [sys.executable, "-m", "envtune.engine.evaluate.evaluate", str(into / "order.json")]
    done = execute(command, run, environ)
    return done, read(into / "results.json") if done.code == 0 else {}


def test_the_tuned_model_is_measured_beside_its_base(results: dict[str, Any]) -> None:
    measured = results["validation"]
    assert measured["rows"] == 31
    assert measured["source"] == "the rows that training held back"
    assert measured["tuned"]["loss"] < measured["base"]["loss"] / 2
    assert 5 < measured["base"]["loss"] < 8, "the untrained base"
    for side in ("base", "tuned"):
        assert set(results["tasks"]["capitals"][side]) >= {"acc,none", "acc_norm,none"}
    assert results["references"]["pairs"] == len(PAIRS)
    assert results["references"]["tuned"]["chrf"] > results["references"]["base"]["chrf"]


def test_the_tuned_model_ends_its_answers_and_the_base_does_not(results: dict[str, Any]) -> None:
    """The base has never seen the token that ends a turn."""
    answered = results["generation"]
    assert answered["settings"] == {"max_new_tokens": 24, "do_sample": False}
    assert answered["tuned"]["checks"]["stopped"] > answered["base"]["checks"]["stopped"]
    assert answered["tuned"]["tokens"]["max"] <= 24
    for sample in results["samples"]:
        for side in ("base", "tuned"):
            assert not {"<|end|>", "<|assistant|>"} & set(sample[side]["text"].split())
            assert sample["prompt"][-1]["content"] not in sample[side]["text"]
    assert set(results["samples"][1]["tuned"]["checks"]) >= {"max sentences"}


def test_the_run_keeps_the_figures_and_has_pages(evaluated: Path, results: dict[str, Any]) -> None:
    record = read(evaluated / "run.json")["stages"]["evaluate"]
    assert record["outcome"] == "done"
    assert record["validation"] == results["validation"]
    assert "samples" not in record
    assert (
        "the validation loss is below that of the base" in read(evaluated / ".complete")["checks"]
    )
    for page in ("samples.md", "samples.html"):
        assert "What is the capital of France?" in (evaluated / "eval" / page).read_text()
    assert read(evaluated / "outcome.json")["state"] == "finished", "training's last word stands"


def alone(model: Any, tokenizer: Any, row: dict[str, Any]) -> tuple[float, int]:
    """The summed loss of a row's answer, and its tokens, by transformers alone."""
    whole = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
    asked = tokenizer.apply_chat_template(
        row["messages"][:1], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    end = whole.index(tokenizer.eos_token_id) + 1
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0]
    likelihood = torch.log_softmax(logits, -1)
    kept = range(len(asked), end)
    return -sum(likelihood[i - 1, whole[i]].item() for i in kept), len(kept)


def mean(model: Any, tokenizer: Any, rows: list[dict[str, Any]]) -> float:
    totals = [alone(model, tokenizer, row) for row in rows]
    return sum(total for total, _ in totals) / sum(count for _, count in totals)


def test_the_loss_of_an_adapter_is_that_of_its_answers_tokens(
    evaluated: Path, embedded: Path, measure: Measure, tmp_path: Path
) -> None:
    """Of a file of long and short rows, against transformers and PEFT, one row at a time."""
    rows = [json.loads(line) for line in (embedded / "instructions.jsonl").open()][::23]
    (tmp_path / "held.jsonl").write_text(lines(rows))
    done, found = measure(evaluated, tmp_path, dataset=str(tmp_path / "held.jsonl"))
    assert done.code == 0, done.err[-3000:]
    tokenizer = AutoTokenizer.from_pretrained(evaluated / "adapter")
    base = AutoModelForCausalLM.from_pretrained(embedded / "tiny-llama")
    wanted = {"base": mean(base, tokenizer, rows)}
    wanted["tuned"] = mean(PeftModel.from_pretrained(base, evaluated / "adapter"), tokenizer, rows)
    for side, loss in wanted.items():
        assert found["validation"][side]["loss"] == pytest.approx(loss, abs=1e-4)
    assert found["validation"]["rows"] == len(rows)
    assert found["validation"]["tokens"] == sum(alone(base, tokenizer, row)[1] for row in rows)


def test_a_model_that_was_trained_whole_is_measured_beside_its_base(
    full: Path, embedded: Path, measure: Measure, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (embedded / "instructions.jsonl").open()][::40]
    (tmp_path / "held.jsonl").write_text(lines(rows))
    prompts = [{"instruction": "What is the capital of France?"}]
    sampled = {"max_new_tokens": 8, "temperature": 0.9, "top_p": 0.9}
    order = {"dataset": str(tmp_path / "held.jsonl"), "prompts": prompts, "generation": sampled}
    done, found = measure(full, tmp_path, **order)
    assert done.code == 0, done.err[-3000:]
    tokenizer = AutoTokenizer.from_pretrained(full / "model")
    for side, folder in (("base", embedded / "tiny-llama"), ("tuned", full / "model")):
        loss = mean(AutoModelForCausalLM.from_pretrained(folder), tokenizer, rows)
        assert found["validation"][side]["loss"] == pytest.approx(loss, abs=1e-4)
    assert found["generation"]["settings"] == {**sampled, "do_sample": True}


def test_a_seed_draws_the_same_answers(embedded: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(embedded / "tiny-llama")
    config = GenerationConfig(do_sample=True, max_new_tokens=8, pad_token_id=0, eos_token_id=[2])
    first, same, other = (generation.answer(model, [[5, 6, 7]], config, n) for n in (1, 1, 2))
    assert first == same != other


def test_what_cannot_be_measured_is_one_line(
    evaluated: Path, measure: Measure, tmp_path: Path
) -> None:
    (tmp_path / "mine.yaml").write_text(TASK.format(rows=tmp_path / "gone.jsonl"))
    with pytest.raises(Refused, match="SFT_EVAL_TASKS: task capitals cannot be loaded: "):
        Tasks(["capitals"], str(tmp_path), None)
    long = [{"instruction": "What is this? " * 300}]
    done, _ = measure(evaluated, tmp_path, prompts=long)
    assert done.code == 3
    assert "the model takes 512" in done.err.splitlines()[-1]


def test_an_evaluation_that_failed_or_was_killed_is_repeated_alone(entrypoint: Entrypoint) -> None:
    """Its prompts are gone; then it is killed; then it is done. Nothing trains again."""
    path = entrypoint.folder / "prompts.txt"
    path.write_text("What is the capital of France?\n")
    more = {"SFT_EVAL_PROMPTS": str(path), "SFT_EVAL_GENERATION": '{"max_new_tokens": 4}'}
    start = entrypoint.start(**more, AXOLOTL_MAX_STEPS="2", SFT_EXPORT="false")
    start.until(lambda: (start.only_run() / "outcome.json").exists())  # every check is passed
    path.unlink()
    failed = start.wait()
    assert failed.code == 3
    assert f"evaluate failed: {path} is not there" in failed.err
    run = start.only_run()
    assert (run / "adapter").is_dir()
    assert not (run / "serving").exists(), "SFT_EXPORT leaves it out"
    assert not (run / ".complete").exists()
    steps = (run / "metrics.jsonl").read_text()

    path.write_text("What is the capital of France?\n")
    again = entrypoint.start("envtune", "run", "--folder", str(run))
    again.until(lambda: (run / "config" / "evaluate.json").exists())
    for pid in again.left_over():
        kill(pid)
    assert again.wait().code == 137
    assert not (run / "eval" / "results.json").exists()

    done = entrypoint.run("envtune", "run", "--folder", str(run))
    assert done.code == 0, done.err
    assert "train: done before" in done.err
    assert (run / "metrics.jsonl").read_text() == steps
    assert "no rows were held back" in (run / "eval" / "samples.md").read_text()


def test_the_names_of_tasks_are_those_of_the_installed_lm_eval() -> None:
    assert set(TaskManager().all_tasks) - lm_eval_tasks.names() == set()


ALPACA = "### Instruction:\nSay it.\n\n### Response:\n"
TYPES: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({"type": "chat_template"}, {}, "<|begin|><|user|>\nSay it.\n<|assistant|>\n"),
    ({"type": "alpaca"}, {}, ALPACA),
    ({"type": "alpaca:chat"}, {}, "USER: Say it.\nASSISTANT:"),
    ({"type": "completion"}, {}, "Say it."),
    (
        {"type": {"field_instruction": "q", "field_output": "a", "format": "Q: {instruction}\nA: ",
                  "no_input_format": "Q: {instruction}\nA: "}},
        {},
        "Q: Say it.\nA: ",
    ),
    (
        {"type": "envtune.engine.rows", "input_format": "### Q\n{{ask}}\n### A\n{{reply}}"},
        {"response_template": "### A\n"},
        "### Q\nSay it.\n### A\n",
    ),
    (
        {"type": "envtune.engine.rows", "field": "text"},
        {"response_template": "\nA: ", "instruction_template": "Q: "},
        "Q: Say it.\nA: ",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "more", "text"), TYPES, ids=lambda part: str(part)[:40])
def test_a_prompt_is_laid_out_as_the_data_was(
    dataset: Mapping[str, Any], more: Mapping[str, Any], text: str, embedded: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded / "tiny-llama")
    cfg = DictDefault({"datasets": [dict(dataset)], "sequence_len": 512, **more})
    [ids] = prompting.encode([Prompt(instruction="Say it.")], cfg, tokenizer)
    assert tokenizer.decode(ids).endswith(text)


def test_a_prompt_that_a_type_has_no_place_for_is_refused(embedded: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(embedded / "tiny-llama")
    turns = tuple({"role": role, "content": "a"} for role in ("user", "assistant", "user"))
    cfg = DictDefault({"datasets": [{"type": "alpaca"}], "sequence_len": 512})
    with pytest.raises(Refused, match="and no conversation of several turns"):
        prompting.encode([Prompt(messages=turns)], cfg, tokenizer)
    choices = DictDefault({"datasets": [{"type": "explainchoice"}], "sequence_len": 512})
    with pytest.raises(Refused, match="explainchoice: its rows are laid out by code"):
        prompting.encode([Prompt(instruction="a")], choices, tokenizer)


def test_tasks_change_nothing_of_a_model_whose_twins_were_trained_apart(
    embedded: Path, tmp_path: Path
) -> None:
    """lm_eval would tie an output layer that was trained to the embeddings that were not."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    lora = LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = get_peft_model(LlamaForCausalLM(config), lora).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    (tmp_path / "rows.jsonl").write_text(lines([{"question": "a", "choices": ["b", "c"]}]))
    (tmp_path / "capitals.yaml").write_text(TASK.format(rows=tmp_path / "rows.jsonl"))
    prompt = torch.arange(5, 25).unsqueeze(0)
    before = model(prompt).logits
    tokenizer = AutoTokenizer.from_pretrained(embedded / "tiny-llama")
    scored = Tasks(["capitals"], str(tmp_path), None).score(model, tokenizer)
    assert set(scored) == {"capitals"}
    assert torch.equal(model(prompt).logits, before)


LOADED = """
from pathlib import Path
import torch
from envtune.engine.evaluate.trained import read
trained = read(Path("config/axolotl.yaml"), Path("adapter").resolve(), None)
trained.cfg.rl = "dpo"
prompt = torch.arange(5, 25).unsqueeze(0)
with torch.no_grad():
    found = trained.each(lambda side, model: model(prompt).logits)
assert not torch.allclose(found["tuned"], found["base"])
"""


ON_BOTH = """\
from pathlib import Path
import torch
from bitsandbytes.nn import modules
from envtune.engine.evaluate.trained import read
trained = read(Path("config/axolotl.yaml"), Path("adapter"), None)
prompt = torch.tensor([[5, 6, 7, 8]])
def logits(side, model):
    assert model.base_model.model.is_loaded_in_4bit
    with torch.no_grad():
        return model(prompt).logits
found = []
for told in (False, True):
    modules.has_avx512bf16 = lambda: told
    found.append(trained.each(logits))
for side in ("tuned", "base"):
    assert torch.equal(found[0][side], found[1][side]), side
"""


def test_a_base_in_4_bits_answers_alike_on_every_processor(evaluated: Path, tmp_path: Path) -> None:
    """bitsandbytes rounds to bfloat16 where a processor knows AVX512-BF16, unless it is kept from it."""
    run = shutil.copytree(evaluated, tmp_path / "run", symlinks=True)
    config = yaml.safe_load((run / "config" / "axolotl.yaml").read_text())
    config |= {"adapter": "qlora", "load_in_4bit": True}
    (run / "config" / "axolotl.yaml").write_text(yaml.safe_dump(config))
    environ = clean_environ(AXOLOTL_DO_NOT_TRACK="1", AXOLOTL_TEE_STDOUT="0", HF_HUB_OFFLINE="1")
    done = execute([sys.executable, "-c", ON_BOTH], run, environ)
    assert done.code == 0, done.err[-3000:]


def test_an_adapter_that_preferences_trained_is_loaded_too(evaluated: Path) -> None:
    """Axolotl leaves it to the trainer of such a run."""
    environ = clean_environ(AXOLOTL_DO_NOT_TRACK="1", AXOLOTL_TEE_STDOUT="0")
    done = execute([sys.executable, "-c", LOADED], evaluated, environ)
    assert done.code == 0, done.err[-3000:]

"""Real trainings through scripts/autorun.sh, and what they leave."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.harness import Entrypoint, losses, metrics, read


def _loss(model: torch.nn.Module, folder: Path, embedded: Path) -> float:
    """The mean loss over some rows, rendered with the tokenizer that lies in `folder`."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    total = 0.0
    rows = (embedded / "instructions.jsonl").read_text().splitlines()[::30]
    for row in rows:
        ids = tokenizer.apply_chat_template(
            json.loads(row)["messages"], return_tensors="pt", return_dict=True
        )["input_ids"]
        with torch.no_grad():
            total += float(model(input_ids=ids, labels=ids).loss)
    return total / len(rows)


def test_the_loss_falls_clearly(lora: Path, full: Path) -> None:
    for run in (lora, full):
        values = [loss for _, loss, _ in losses(run)]
        assert sum(values[-5:]) < 0.5 * sum(values[:5])


def test_every_step_is_logged_once_and_tokens_only_grow(lora: Path) -> None:
    lines = metrics(lora)
    assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
    tokens = [line["tokens"] for line in lines]
    assert tokens == sorted(set(tokens))


def test_only_real_tokens_are_counted(lora: Path, embedded: Path) -> None:
    """Two epochs over every row, each rendered by the template: no padding is in the sum."""
    tokenizer = AutoTokenizer.from_pretrained(embedded / "tiny-llama")
    rows = [json.loads(line) for line in (embedded / "instructions.jsonl").open()]
    rendered = [tokenizer.apply_chat_template(row["messages"], return_dict=True) for row in rows]
    expected = 2 * sum(len(item["input_ids"]) for item in rendered)
    assert read(lora / "report.json")["total_tokens"] == expected


def test_the_adapter_reloads_with_peft_and_knows_what_it_learned(
    lora: Path, embedded: Path
) -> None:
    base = AutoModelForCausalLM.from_pretrained(embedded / "tiny-llama")
    before = _loss(base, lora / "adapter", embedded)
    after = _loss(PeftModel.from_pretrained(base, lora / "adapter"), lora / "adapter", embedded)
    assert after < before - 1


def test_a_fully_tuned_model_reloads_with_its_tokenizer(full: Path, embedded: Path) -> None:
    base = AutoModelForCausalLM.from_pretrained(embedded / "tiny-llama")
    tuned = AutoModelForCausalLM.from_pretrained(full / "model")
    assert _loss(tuned, full / "model", embedded) < _loss(base, full / "model", embedded) - 1


def test_the_records_agree_with_each_other(lora: Path) -> None:
    report, record, complete = (
        read(lora / name) for name in ("report.json", "run.json", ".complete")
    )
    lines = metrics(lora)
    assert report["steps"] == len(lines)
    assert report["world_size"] == 1
    assert (report["first_loss"], report["last_loss"]) == (lines[0]["loss"], lines[-1]["loss"])
    assert report["tokens_per_second"] == pytest.approx(
        report["total_tokens"] / report["elapsed_seconds"], rel=0.01
    )
    assert record["outcome"] == {"exit": 0, "message": "done"}
    assert record["seed"] == 42
    assert record["versions"]["axolotl"] == "0.19.0"
    assert record["resolved"]["axolotl"]["learning_rate"]["source"] == "AXOLOTL_LEARNING_RATE"
    assert complete["run.json"] == hashlib.sha256((lora / "run.json").read_bytes()).hexdigest()
    assert "not all zero" in complete["checks"]


def test_the_yaml_in_the_record_is_the_one_that_was_trained(lora: Path) -> None:
    text = (lora / "config" / "axolotl.yaml").read_bytes()
    assert read(lora / "run.json")["hashes"]["axolotl.yaml"] == hashlib.sha256(text).hexdigest()
    assert yaml.safe_load(text)["plugins"] == ["envtune.engine.plugin.EnvtunePlugin"]


def test_both_latest_files_point_to_the_run(lora: Path) -> None:
    base = lora.parents[1]
    assert (base / "outputs" / (base / "outputs/latest.txt").read_text().strip()) == lora
    assert (base / "logs" / (base / "logs/latest.txt").read_text().strip() / "train").is_dir()


def test_a_second_start_says_already_done_and_touches_nothing(
    lora: Path, settings: dict[str, str]
) -> None:
    before = {p: p.stat().st_mtime_ns for p in lora.rglob("*")}
    result = Entrypoint(lora.parents[1], settings).run()
    assert result.code == 0
    assert "already done" in result.out
    assert {p: p.stat().st_mtime_ns for p in lora.rglob("*")} == before
    assert len(list(lora.parent.glob("*-run*"))) == 1


def test_changed_data_at_the_same_path_is_another_run(
    entrypoint: Entrypoint, embedded: Path
) -> None:
    data = entrypoint.folder / "data.jsonl"
    rows = (embedded / "instructions.jsonl").read_text().splitlines(keepends=True)
    names = []
    for part in (rows[:100], rows[100:200]):
        data.write_text("".join(part))
        told = entrypoint.run("envtune", "print-runtime", AXOLOTL_DATASETS__0__PATH=str(data))
        assert told.code == 0, told.err
        names.append(told.out)
    assert names[0] != names[1]

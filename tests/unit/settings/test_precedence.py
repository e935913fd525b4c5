"""Which of several sources counts, what becomes of the others, and what is told of it."""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from envtune.cli import output
from envtune.errors import Refused
from envtune.resolve.rules import resolve
from envtune.settings import loading, sources
from envtune.settings.own import profiles
from envtune.settings.sources import PRECEDENCE
from envtune.settings.typed import Settings
from tests.unit.builders import MODEL_AND_DATA, make_facts

FILE, BASE64 = "SFT_TRAINER_CONFIG_JSON_PATH", "SFT_TRAINER_CONFIG_JSON_ENV_VAR"


def encoded(document: object) -> str:
    return base64.b64encode(json.dumps(document).encode()).decode()


def load(environ: dict[str, str], arguments: Sequence[str] = ()) -> Settings:
    given = sources.read(arguments, {**MODEL_AND_DATA, **environ})
    return loading.load(sources.with_documents(given))


def test_each_layer_wins_over_all_that_are_weaker(tmp_path: Path) -> None:
    """Batch sizes 1 to 7, one a layer; without the strongest, the next one counts."""
    file, template = tmp_path / "c.json", tmp_path / "t.yaml"
    file.write_text('{"micro_batch_size": 3}')
    template.write_text("micro_batch_size: 2\n")
    layers = {
        "profile": {"SFT_PROFILE": "minimal"},
        "template": {"SFT_TEMPLATE": str(template)},
        "file": {FILE: str(file)},
        "base64": {BASE64: encoded({"micro_batch_size": 4})},
        "SFT_": {"SFT_PER_DEVICE_TRAIN_BATCH_SIZE": "5"},
        "AXOLOTL_": {"AXOLOTL_MICRO_BATCH_SIZE": "6"},
    }
    assert (*layers, "command line") == PRECEDENCE
    arguments = ["AXOLOTL_MICRO_BATCH_SIZE=7"]
    for strongest in range(len(PRECEDENCE), 0, -1):
        kept = list(layers)[:strongest]
        environ = {name: text for layer in kept for name, text in layers[layer].items()}
        found = load(environ, arguments if strongest == len(PRECEDENCE) else ())
        size = found.axolotl["micro_batch_size"]
        assert (size.value, size.layer) == (strongest, PRECEDENCE[strongest - 1])
    config = resolve(load({}), make_facts())
    assert config.axolotl["micro_batch_size"].source == "envtune"
    assert profiles.PROFILES["minimal"]["micro_batch_size"] == 1


ALTERNATIVES = [
    ({"warmup_steps": 5}, {"WARMUP_RATIO": "0.1"}, {"warmup_ratio": 0.1}),
    ({"warmup_steps": 5}, {"WARMUP_RATIO": "0"}, {"warmup_ratio": 0}),
    ({"warmup_ratio": 0.1}, {"WARMUP_STEPS": "0"}, {"warmup_steps": 0}),
    ({"num_epochs": 3}, {"MAX_STEPS": "5"}, {"max_steps": 5}),
    ({"max_steps": 5}, {"NUM_EPOCHS": "3"}, {"num_epochs": 3}),
    ({"save_steps": 5}, {"SAVES_PER_EPOCH": "2"}, {"saves_per_epoch": 2}),
    ({"save_steps": 5}, {"SAVE_STRATEGY": "epoch"}, {"save_strategy": "epoch"}),
    ({"save_steps": 5}, {"SAVE_STRATEGY": "steps"}, {"save_steps": 5, "save_strategy": "steps"}),
    ({"save_strategy": "epoch"}, {"SAVE_STEPS": "5"}, {"save_steps": 5}),
    ({"eval_steps": 5}, {"EVAL_STRATEGY": "no"}, {"eval_strategy": "no"}),
    ({"evals_per_epoch": 5}, {"EVAL_STEPS": "2"}, {"eval_steps": 2}),
    (
        {"gradient_accumulation_steps": 5}, {"BATCH_SIZE": "8"}, {"batch_size": 8},
    ),
    ({"bf16": True}, {"FP16": "true"}, {"fp16": True}),
    ({"bf16": True}, {"FP16": "false"}, {"bf16": True, "fp16": False}),
    ({"load_in_4bit": True}, {"LOAD_IN_8BIT": "true"}, {"load_in_8bit": True}),
    ({"lora_target_linear": True}, {"LORA_TARGET_MODULES": "q,v"}, {"lora_target_modules": ["q", "v"]}),
    ({"val_set_size": 0.1}, {"TEST_DATASETS": '[{"path": "a"}]'}, {"test_datasets": [{"path": "a"}]}),
    ({"fsdp_config": {"reshard_after_forward": True}}, {"DEEPSPEED": "z"}, {"deepspeed": "z"}),
]  # fmt: skip


@pytest.mark.parametrize(("weaker", "stronger", "left"), ALTERNATIVES)
def test_another_way_to_say_a_thing_gives_way_to_a_stronger_layers(
    weaker: dict[str, Any], stronger: dict[str, str], left: dict[str, Any]
) -> None:
    environ = {f"AXOLOTL_{name}": text for name, text in stronger.items()}
    found = load({BASE64: encoded(weaker), **environ})
    given = {"base_model", "datasets"}
    assert {k: s.value for k, s in found.axolotl.items() if k not in given} == left
    [old], [new] = weaker, environ
    told = f"{new} takes the place of {BASE64}: {old}"
    assert (told in found.notes) == (old not in left)


def test_two_ways_in_one_layer_stay_for_the_checks() -> None:
    found = load({"AXOLOTL_WARMUP_STEPS": "5", "AXOLOTL_WARMUP_RATIO": "0.1"})
    assert {"warmup_steps", "warmup_ratio"} <= found.axolotl.keys()


def test_what_was_replaced_is_told_and_what_was_said_twice_is_not() -> None:
    document = encoded({"lora_r": 8, "seed": 1})
    found = load({BASE64: document, "AXOLOTL_LORA_R": "16", "AXOLOTL_SEED": "1"})
    assert list(found.notes) == [f"AXOLOTL_LORA_R takes the place of {BASE64}: lora_r"]


def test_the_command_line_over_the_same_variable_is_told_with_its_layer() -> None:
    found = load({"AXOLOTL_LORA_R": "16"}, ["AXOLOTL_LORA_R=8"])
    assert list(found.notes) == [
        "AXOLOTL_LORA_R of the command line takes the place of AXOLOTL_LORA_R"
    ]


def test_what_nobody_set_by_hand_is_replaced_without_a_word() -> None:
    assert not load({"SFT_PROFILE": "minimal", "AXOLOTL_NUM_EPOCHS": "2"}).notes


def test_the_explanation_shows_every_weaker_value_with_its_layer(tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    file.write_text('{"seed": 1}')
    environ = {FILE: str(file), BASE64: encoded({"seed": 2}), "SFT_SEED": "3"}
    found = load({**environ, "AXOLOTL_SEED": "4"}, ["AXOLOTL_SEED=5"])
    lines = output.explanation(resolve(found, make_facts()), found, "seed").splitlines()
    assert lines[1].split() == ["value", "5"]
    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("overrode")] == [
        "4 (AXOLOTL_SEED, AXOLOTL_)",
        "3 (SFT_SEED, SFT_)",
        f"2 ({BASE64}: seed, base64)",
        f"1 ({FILE}: seed, file)",
    ]


def test_the_explanation_of_one_of_envtunes_own_settings_shows_them_too() -> None:
    found = load({BASE64: encoded({"SFT_DEVICE": "cuda"}), "SFT_DEVICE": "cpu"})
    text = output.explanation(resolve(found, make_facts()), found, "sft_device")
    assert f"overrode  cuda ({BASE64}: SFT_DEVICE, base64)" in text.splitlines()


def test_layers_merge_inside_a_value_and_each_part_keeps_its_name() -> None:
    document = encoded({"model_name_or_path": "a", "training_data_path": "f.jsonl"})
    environ = {BASE64: document, "SFT_DATASET_TEXT_FIELD": "output"}
    found = loading.load(sources.with_documents(sources.read(environ=environ)))
    datasets = found.axolotl["datasets"]
    assert datasets.value == [{"path": "f.jsonl", "field": "output"}]
    assert datasets.at(0, "path") == f"{BASE64}: training_data_path"
    assert datasets.at(0, "field") == "SFT_DATASET_TEXT_FIELD"


@pytest.mark.parametrize(
    "name", ["SFT_PROFILE", "SFT_TEMPLATE", FILE, BASE64, "SFT_DATASET_CONFIG"]
)
def test_what_names_a_source_is_refused_inside_of_one(name: str) -> None:
    with pytest.raises(Refused) as refused:
        load({BASE64: encoded({name: "debug"})})
    [problem] = refused.value.problems
    assert str(problem) == f"{BASE64}: {name}: is read before any file; set it as a variable"

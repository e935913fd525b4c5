"""envtune's defaults as tables, and that the user's values always win."""

import builtins
import io
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from envtune.data import shapes
from envtune.machine.hardware import Machine
from envtune.render import launch
from envtune.render.launch import Place
from envtune.resolve import owned
from envtune.resolve.batch import batch_sum
from envtune.resolve.config import Tracking
from envtune.resolve.rules import RULES, resolve
from envtune.settings import axolotl_keys, upstream
from tests.unit import builders
from tests.unit.builders import AMPERE, CPU, HOPPER, TURING, load, make_facts, of_settings, resolved

COMMON = {
    "adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0,
    "lora_target_linear": True, "learning_rate": 2e-4, "num_epochs": 3, "lr_scheduler": "cosine",
    "warmup_ratio": 0.03, "seed": 42, "val_set_size": 0.0, "sequence_len": 2048,
    "micro_batch_size": 4, "gradient_accumulation_steps": 4, "sample_packing": False,
    "pad_to_sequence_len": False, "attn_implementation": "sdpa", "logging_steps": 1,
    "saves_per_epoch": 4, "save_total_limit": 3, "output_dir": "checkpoints",
    "dataset_prepared_path": "data/prepared",
}  # fmt: skip
ON_CPU = {
    "optimizer": "adamw_torch", "bf16": False, "fp16": False, "lora_mlp_kernel": False,
    "lora_qkv_kernel": False, "lora_o_kernel": False, "lora_embedding_kernel": False,
    "gradient_checkpointing": False, "dataloader_num_workers": 0, "dataloader_pin_memory": False,
}  # fmt: skip
ON_GPU = {"optimizer": "adamw_torch_fused", "gradient_checkpointing": True}
GIVEN = {
    "base_model": "acme/Tiny-Llama",
    "datasets": [{"path": "acme/rows", "type": "alpaca"}],
    "plugins": [owned.PLUGIN],
}


@pytest.mark.parametrize(
    ("machine", "more"),
    [
        (CPU, ON_CPU),
        (AMPERE, {**ON_GPU, "bf16": True, "fp16": False}),
        (HOPPER, {**ON_GPU, "bf16": True, "fp16": False}),
        (TURING, {**ON_GPU, "bf16": False, "fp16": True}),
    ],
    ids=["cpu", "ampere", "hopper", "turing"],
)
def test_the_defaults_of_a_machine(machine: Machine, more: dict[str, Any]) -> None:
    plain = resolved(facts=make_facts(machine)).plain()
    assert plain == {**GIVEN, **COMMON, **more}


@pytest.mark.parametrize(
    ("given", "changed", "absent"),
    [
        ({"ADAPTER": "null"}, {"learning_rate": 2e-5}, {"lora_r", "lora_alpha", "lora_dropout"}),
        ({"LORA_R": "8"}, {"lora_alpha": 16}, set()),
        ({"ADAPTER": "qlora"}, {"lora_r": 16, "learning_rate": 2e-4}, set()),
        ({"LORA_TARGET_MODULES": "q,v"}, {}, {"lora_target_linear"}),
        ({"MAX_STEPS": "10"}, {}, {"num_epochs"}),
        ({"WARMUP_STEPS": "10"}, {}, {"warmup_ratio"}),
        ({"SAVE_STEPS": "10"}, {}, {"saves_per_epoch"}),
        ({"SAVE_STRATEGY": "no"}, {}, {"saves_per_epoch"}),
        ({"BATCH_SIZE": "8"}, {"gradient_accumulation_steps": 2}, {"batch_size"}),
        (
            {"BATCH_SIZE": "10"},
            {"micro_batch_size": 2, "gradient_accumulation_steps": 5},
            {"batch_size"},
        ),
        ({"BATCH_SIZE": "7"}, {"micro_batch_size": 1, "gradient_accumulation_steps": 7}, set()),
        ({"LOAD_IN_4BIT": "true"}, {"adapter": "qlora", "lora_r": 16}, set()),
        ({"USE_ONEBITLLMS": "true"}, {"learning_rate": 2e-5}, {"adapter", "lora_r"}),
        ({"EVAL_STEPS": "5"}, {"val_set_size": 0.05}, set()),
        ({"EVAL_STRATEGY": "no"}, {"val_set_size": 0.0}, set()),
        ({"EVAL_STEPS": "5", "STREAMING": "true"}, {"val_set_size": 0.0}, set()),
        ({"EVAL_STEPS": "5", "VAL_SET_SIZE": "0.2"}, {"val_set_size": 0.2}, set()),
        ({"QUANTIZE_MOE_EXPERTS": "true"}, {}, {"lora_target_linear"}),
        ({"MICRO_BATCH_SIZE": "1"}, {"gradient_accumulation_steps": 16}, set()),
        ({"MICRO_BATCH_SIZE": "64"}, {"gradient_accumulation_steps": 1}, set()),
        (
            {"FLASH_ATTENTION": "true"},
            {"attn_implementation": "flash_attention_2"},
            {"flash_attention"},
        ),
        ({"FLASH_ATTENTION": "false"}, {"attn_implementation": "sdpa"}, set()),
        ({"TEST_DATASETS": '[{"path": "a"}]'}, {}, {"val_set_size"}),
        ({"FP16": "true"}, {"bf16": False}, set()),
        ({"BF16": "false"}, {"fp16": True}, set()),
        ({"BF16": "auto"}, {"fp16": False}, set()),
    ],
)
def test_a_default_follows_what_the_user_set(
    given: dict[str, str], changed: dict[str, Any], absent: set[str]
) -> None:
    environ = {f"AXOLOTL_{name}": text for name, text in given.items()}
    plain = resolved(environ, make_facts(AMPERE)).plain()
    assert {key: plain.get(key) for key in changed} == changed
    assert not absent & plain.keys()


OTHERS = {
    "adapter": "qlora", "lora_r": 3, "lora_alpha": 5, "lora_dropout": 0.5, "learning_rate": 0.7,
    "load_in_4bit": False, "save_steps": 6, "num_epochs": 7, "optimizer": "sgd", "lr_scheduler": "linear", "warmup_ratio": 0.5, "seed": 1,
    "val_set_size": 0.1, "eot_tokens": ["a"], "sequence_len": 99, "micro_batch_size": 2, "saves_per_epoch": 9,
    "gradient_accumulation_steps": 3, "sample_packing": True, "pad_to_sequence_len": True,
    "bf16": True, "fp16": True, "attn_implementation": "eager", "lora_mlp_kernel": True,
    "lora_qkv_kernel": True, "lora_o_kernel": True, "lora_embedding_kernel": True,
    "gradient_checkpointing": True, "dataloader_num_workers": 9, "dataloader_pin_memory": True,
    "lora_target_linear": False, "logging_steps": 8, "save_total_limit": 8, "wandb_project": "p",
    "eval_batch_size": 3, "sdpa_varlen": True, "activation_offloading": True,
    "use_mlflow": True, "mlflow_experiment_name": "e", "use_tensorboard": True,
}  # fmt: skip


@pytest.mark.parametrize("machine", [CPU, AMPERE, TURING])
def test_the_users_values_always_win(machine: Machine) -> None:
    assert set(OTHERS) == {key for key, _ in RULES}
    environ = {f"AXOLOTL_{key.upper()}": json.dumps(v).strip('"') for key, v in OTHERS.items()}
    config = resolved(environ, make_facts(machine, tracking=Tracking(wandb_key=True)))
    assert {key: config.axolotl[key].value for key in OTHERS} == OTHERS
    assert {config.axolotl[key].source for key in OTHERS} == environ.keys()


NULLABLE = [k for k in OTHERS if not builders.problems({f"AXOLOTL_{k.upper()}": "null"})]
CRASHING = {"gradient_accumulation_steps", "lora_r", "micro_batch_size"}


@pytest.mark.parametrize(
    "key",
    [pytest.param(key) if key in CRASHING else key for key in NULLABLE],
)
def test_null_is_a_value_of_the_users_too(key: str) -> None:
    assert len(NULLABLE) > 20
    config = resolved({f"AXOLOTL_{key.upper()}": "null"})
    assert config.axolotl[key].value is None
    assert batch_sum(config)


@pytest.mark.parametrize(
    ("name", "text"),
    [("MICRO_BATCH_SIZE", "0"), ("MICRO_BATCH_SIZE", "-1"), ("GRADIENT_ACCUMULATION_STEPS", "0")],
)
def test_a_batch_of_nothing_is_refused_and_no_crash(name: str, text: str) -> None:
    environ = {**builders.MODEL_AND_DATA, f"AXOLOTL_{name}": text}
    assert builders.problems(environ) or of_settings(load(environ))


@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({}, "4 micro x 4 accumulation x 1 world = 16 global"),
        ({"AXOLOTL_MICRO_BATCH_SIZE": "3"}, "3 micro x 5 accumulation x 1 world = 15 global"),
        ({"AXOLOTL_BATCH_SIZE": "8"}, "4 micro x 2 accumulation x 1 world = 8 global"),
        (
            {"AXOLOTL_MICRO_BATCH_SIZE": "2", "AXOLOTL_GRADIENT_ACCUMULATION_STEPS": "3"},
            "2 micro x 3 accumulation x 1 world = 6 global",
        ),
    ],
)
def test_the_arithmetic_of_a_step_is_one_line(environ: dict[str, str], line: str) -> None:
    assert batch_sum(resolved(environ)) == line


@pytest.mark.parametrize(
    ("context", "length"), [(128, 128), (2048, 2048), (131072, 2048), (None, 2048)]
)
def test_a_sequence_is_no_longer_than_the_models_context(context: int | None, length: int) -> None:
    facts = make_facts(max_position_embeddings=context) if context else make_facts()
    assert resolved(facts=facts).plain()["sequence_len"] == length


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        (("messages",), "chat_template"),
        (("id", "conversations"), "chat_template"),
        (("instruction", "input", "output"), "alpaca"),
        (("text",), "completion"),
        (("text", "messages"), "chat_template"),
        (("prompt", "completion"), "{instruction}"),
        (("instruction",), None),
        (("question", "answer"), "{instruction}"),
        (("Text",), None),
        ((), None),
    ],
)
def test_the_columns_tell_the_type_of_the_data(columns: tuple[str, ...], kind: str | None) -> None:
    found = shapes.detect(columns)
    if kind is None:
        assert found is None
    else:
        assert kind in str((found or {})["type"])


@pytest.mark.parametrize(
    ("dataset", "masked", "filled"),
    [
        ({"field": "a"}, False, {"type": "completion", "field": "a"}),
        ({"field": "a"}, True, {"type": "envtune.engine.rows", "field": "a"}),
        ({}, True, {"type": "envtune.engine.rows"}),
        ({"input_format": "{{a}}"}, False,
         {"type": "envtune.engine.rows", "input_format": "{{a}}"}),
        ({"field_messages": "a"}, False, {"type": "chat_template", "field_messages": "a"}),
        ({"field_messages": "a"}, True, {"type": "chat_template", "field_messages": "a"}),
        ({"type": "alpaca"}, True, {"type": "alpaca"}),
    ],
)  # fmt: skip
def test_the_keys_of_a_data_set_tell_its_type_before_its_columns_do(
    dataset: dict[str, str], masked: bool, filled: dict[str, str]
) -> None:
    environ = {"AXOLOTL_DATASETS": json.dumps([{"path": "a", **dataset}])}
    if masked:
        environ["AXOLOTL_RESPONSE_TEMPLATE"] = "Answer:"
    config = resolved(environ, make_facts(columns=[("instruction", "output")]))
    assert config.plain()["datasets"] == [{"path": "a", **filled}]


@pytest.mark.parametrize(
    ("split", "sampled"),
    [({}, "train[:5]"), ({"split": "test"}, "test[:5]"), ({"split": "train[3:]"}, "train[3:]")],
)
def test_a_sample_takes_the_first_rows_of_each_data_set(
    split: dict[str, str], sampled: str
) -> None:
    environ = {"AXOLOTL_DATASETS": json.dumps([{"path": "a", "type": "alpaca", **split}])}
    assert resolved({**environ, "SFT_SAMPLE_SIZE": "5"}).plain()["datasets"][0]["split"] == sampled


@pytest.mark.parametrize(
    ("held", "filled"),
    [
        ({}, {"type": "completion", "field": "a"}),
        ({"field": "b"}, {"type": "completion", "field": "b"}),
        ({"type": "alpaca"}, {"type": "alpaca"}),
    ],
)
def test_a_validation_set_reads_like_the_first_training_set(
    held: dict[str, str], filled: dict[str, str]
) -> None:
    environ = {
        "AXOLOTL_DATASETS": '[{"path": "a", "field": "a"}]',
        "AXOLOTL_TEST_DATASETS": json.dumps([{"path": "h", **held}]),
        "SFT_SAMPLE_SIZE": "5",
    }
    plain = resolved(environ).plain()
    assert plain["test_datasets"] == [{"path": "h", **filled}]
    assert "val_set_size" not in plain


def test_a_type_is_filled_in_only_where_the_user_left_it_out() -> None:
    datasets = '[{"path": "a"}, {"path": "b", "type": "completion", "ds_type": "text"}]'
    facts = make_facts(columns=[("text",), ("text",)], local=True)
    config = resolved({"AXOLOTL_DATASETS": datasets}, facts)
    assert config.plain()["datasets"] == [
        {"path": "a", "ds_type": "json", "type": "completion", "field": "text"},
        {"path": "b", "type": "completion", "ds_type": "text"},
    ]
    assert "type completion by column" in config.axolotl["datasets"].reason


def test_a_users_field_is_kept_beside_the_type_that_is_filled_in() -> None:
    datasets = '[{"path": "a", "field_messages": "talk"}]'
    config = resolved({"AXOLOTL_DATASETS": datasets}, make_facts(columns=[("messages",)]))
    assert config.plain()["datasets"][0]["field_messages"] == "talk"


@pytest.mark.parametrize(
    ("environ", "tracking", "project"),
    [
        ({}, Tracking(), None),
        ({}, Tracking(wandb_key=True), "envtune"),
        ({}, Tracking(wandb_key=True, wandb_project="mine"), "mine"),
        ({}, Tracking(wandb_mode="offline"), "envtune"),
        ({}, Tracking(wandb_key=True, wandb_mode="disabled"), None),
        ({"AXOLOTL_USE_WANDB": "false"}, Tracking(wandb_key=True), None),
    ],
)
def test_weights_and_biases_is_on_with_a_key_or_offline(
    environ: dict[str, str], tracking: Tracking, project: str | None
) -> None:
    facts = make_facts(tracking=tracking)
    assert resolved(environ, facts).plain().get("wandb_project") == project


@pytest.mark.parametrize(
    ("name", "text"),
    [("AXOLOTL_COMET_API_KEY", "x"), ("AXOLOTL_SWANLAB_API_KEY", "x")],
)
def test_a_key_that_envtune_owns_is_refused_with_the_reason(name: str, text: str) -> None:
    [problem] = owned.refusals(load({name: text}))
    assert str(problem).startswith(f"{name}: is envtune's to set: ")


def test_every_key_that_is_refused_is_one_that_could_be_set() -> None:
    fields = axolotl_keys.schema().fields
    assert not [key for key in owned.REFUSED if key not in fields]


def test_the_users_plugins_are_merged_with_ours_and_ours_comes_first_and_once() -> None:
    for given in ("a.B,c.D", f"a.B,{owned.PLUGIN},c.D"):
        plain = resolved({"AXOLOTL_PLUGINS": given}).plain()
        assert plain["plugins"] == [owned.PLUGIN, "a.B", "c.D"]
    assert resolved({"AXOLOTL_PLUGINS": "null"}).plain()["plugins"] == [owned.PLUGIN]


def test_an_output_folder_and_a_checkpoint_leave_the_yaml() -> None:
    config = resolved({"AXOLOTL_OUTPUT_DIR": "/o", "AXOLOTL_RESUME_FROM_CHECKPOINT": "/c"})
    assert (config.output_dir, config.resume_from) == ("/o", "/c")
    assert config.plain()["output_dir"] == "checkpoints"
    assert "resume_from_checkpoint" not in config.plain()


def test_the_hub_may_be_off_only_where_model_and_data_are_local() -> None:
    assert resolved(facts=make_facts(local=True)).offline
    assert not resolved(facts=make_facts()).offline


def test_the_order_of_the_yaml_does_not_depend_on_the_order_of_the_environment(
    dice: random.Random,
) -> None:
    items = list({"AXOLOTL_LORA_R": "8", "AXOLOTL_SEED": "3", "AXOLOTL_RL_BETA": "0.1"}.items())
    orders = []
    for _ in range(5):
        dice.shuffle(items)
        orders.append(list(resolved(dict(items)).axolotl))
    assert all(order == orders[0] for order in orders)
    assert orders[0][:2] == ["base_model", "datasets"]


def _impure(*arguments: Any, **named: Any) -> Any:
    raise AssertionError("a pure function touched the machine")


class _Untouchable(dict[str, str]):
    __getitem__ = __iter__ = __contains__ = get = keys = items = _impure


def test_resolving_and_launching_touch_neither_disk_nor_clock_nor_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, facts = load({**builders.MODEL_AND_DATA, "HF_TOKEN": "x"}), make_facts(AMPERE)
    place = Place(Path("/runs/one"), "python", 4, "1:2", owner="1:2")
    upstream.axolotl()  # the snapshot is data of the package, read once
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", _Untouchable())
        for module, name in [
            (builtins, "open"), (io, "open"), (os, "open"), (os, "stat"), (os, "listdir"),
            (os, "scandir"), (os, "getcwd"), (time, "time"), (time, "monotonic"),
        ]:  # fmt: skip
            patched.setattr(module, name, _impure)
        config = resolve(given, facts)
        plan = launch.train(config, place, {"PATH": "/bin"}, None)
        key = config.key({})
    assert plan.env["PATH"] == "/bin"
    assert key == resolve(given, facts).key({})


def test_a_moved_file_is_the_same_run_and_a_changed_one_is_not() -> None:
    def key(path: str, digest: str) -> str:
        return resolved({"AXOLOTL_DATASETS__0__DATA_FILES": json.dumps([path])}).key({path: digest})

    assert key("/a", "1") == key("/b", "1")
    assert key("/a", "1") != key("/a", "2")
    assert resolved({"AXOLOTL_SEED": "1"}).key({}) != resolved().key({})
    assert resolved({"SFT_GRACE_SECONDS": "9"}).key({}) == resolved().key({})
    for name, text in (("FILTER_URLS", "true"), ("LANGUAGES", "en"), ("DATA_WEIGHTS", "2")):
        assert resolved({f"SFT_{name}": text}).key({}) != resolved().key({})
    assert resolved({"SFT_FILTER_URLS": "false"}).key({}) == resolved().key({})
    assert resolved({"SFT_PREPARED_DIR": "/p"}).key({}) == resolved().key({})


@pytest.mark.parametrize("key", ["base_model_config", "tokenizer_config"])
def test_a_null_that_axolotl_trips_over_means_the_base_models_own(key: str) -> None:
    assert key not in resolved({f"AXOLOTL_{key.upper()}": "null"}).plain()

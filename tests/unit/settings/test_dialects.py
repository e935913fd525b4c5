"""Foreign dialects: every name has a rule, every value a meaning, every refusal a reason."""

import base64
import json
from typing import Any

import pytest

from envtune.errors import Refused as RefusedError
from envtune.settings import axolotl_keys, dialects, loading, sources, upstream
from envtune.settings.dialects import compose, industrial, trainer
from envtune.settings.dialects.rules import Becomes, Noted, Refused
from envtune.settings.own import OWN, SERVE_FLAG
from envtune.settings.sources import Entry, Layer
from envtune.settings.typed import Settings

DOCUMENT = "SFT_TRAINER_CONFIG_JSON_ENV_VAR"
FLAGS = upstream.trainer()["flags"]
SCHEMA = axolotl_keys.schema()

# What fms-hf-tuning documents beside TrainingArguments.
TRAINERS_OWN = [
    "model_name_or_path",
    "use_flash_attn",
    "flash_attn_implementation",
    "torch_dtype",
    "embedding_size_multiple_of",
    "tokenizer_name_or_path",
    "quantization_method",
    "dequantize",
    "training_data_path",
    "dataset_text_field",
    "dataset_conversation_field",
    "validation_data_path",
    "data_formatter_template",
    "data_config_path",
    "chat_template",
    "response_template",
    "instruction_template",
    "add_special_tokens",
    "cache_dir",
    "max_seq_length",
    "packing",
    "save_strategy",
    "save_model_dir",
    "logging_strategy",
    "trackers",
    "tracker",
    "log_level",
    "trainer_controller_config_file",
    "peft_method",
    "r",
    "lora_r",
    "lora_alpha",
    "target_modules",
    "target_parameters",
    "bias",
    "lora_dropout",
    "lora_post_process_for_vllm",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "num_virtual_tokens",
    "invocation_string",
    "accelerate_launch_args",
    "training_logs_filename",
    "experiment",
    "aim_repo",
    "aim_remote_server_ip",
    "aim_remote_server_port",
    "aim_url",
    "auto_gptq",
    "bitsandbytes",
    "fused_lora",
    "fast_kernels",
    "padding_free",
    "multipack",
    "fast_moe",
    "odm",
    "mcp",
]
TABLES = {
    "trainer": trainer.TABLE, "compose": compose.TABLE,
    "industrial data": industrial.DATA, "industrial training": industrial.TRAINING,
}  # fmt: skip


def loaded(document: object, **environ: str) -> Settings:
    """The settings of a document in base64, and of an environment."""
    text = base64.b64encode(json.dumps(document).encode()).decode()
    given = sources.read(environ={DOCUMENT: text, **environ})
    return loading.load(sources.with_documents(given))


def plain(found: Settings) -> dict[str, Any]:
    """Every key that is set, without what names the document and what its tool adds."""
    several = {**found.axolotl, **found.own}
    return {key: s.value for key, s in several.items() if key != DOCUMENT and s.layer != "dialect"}


def added(found: Settings) -> dict[str, Any]:
    """What the tool of a document adds where it is silent."""
    return {key: s.value for key, s in found.axolotl.items() if s.layer == "dialect"}


def refused(document: object, **environ: str) -> list[str]:
    with pytest.raises(RefusedError) as caught:
        loaded(document, **environ)
    return [str(problem) for problem in caught.value.problems]


def made(**environ: str) -> dict[str, Any]:
    """What variables become, before the keys are looked up."""
    found = dialects.translate(Layer("SFT_", tuple(Entry(n, t) for n, t in environ.items())))
    assert not found.problems
    return {entry.key: entry.value for entry in found.entries}


@pytest.mark.parametrize("flag", sorted({*FLAGS, *TRAINERS_OWN}))
def test_every_flag_of_the_trainer_has_a_rule_or_passes(flag: str) -> None:
    assert flag in trainer.TABLE or flag in SCHEMA.fields
    assert flag in dialects.flags()


@pytest.mark.parametrize("name", TABLES)
def test_a_name_that_only_changes_leads_to_a_key_that_there_is(name: str) -> None:
    for rule in TABLES[name].values():
        if isinstance(rule, str) and rule.startswith(SERVE_FLAG):
            assert rule in OWN or rule.removeprefix(SERVE_FLAG).lower() in upstream.vllm()["flags"]
        elif isinstance(rule, str) and rule not in OWN:
            key, *parts = rule.split(".")
            assert key in SCHEMA.fields
            SCHEMA.at(SCHEMA.fields[key], parts)  # raises where nothing is


@pytest.mark.parametrize("flag", [f for f, r in trainer.TABLE.items() if isinstance(r, Refused)])
def test_a_refused_flag_is_taken_where_it_asks_for_nothing(flag: str) -> None:
    rule = trainer.TABLE[flag]
    assert isinstance(rule, Refused)
    for usual in [None, *rule.unless, *([FLAGS[flag]] if flag in FLAGS else [])]:
        assert plain(loaded({"max_seq_length": 8, flag: usual})) == {"sequence_len": 8}
    [line] = refused({"max_seq_length": 8, flag: "odd"})
    assert line == f"{DOCUMENT}: {flag}: cannot be obeyed: {rule.reason}"
    [line] = refused({}, **{f"SFT_{flag.upper()}": "odd"})
    assert line == f"SFT_{flag.upper()}: cannot be obeyed: {rule.reason}"


@pytest.mark.parametrize("flag", [f for f, r in trainer.TABLE.items() if isinstance(r, Noted)])
def test_what_is_taken_and_not_acted_on_is_told(flag: str) -> None:
    rule = trainer.TABLE[flag]
    assert isinstance(rule, Noted)
    found = loaded({"max_seq_length": 8, flag: "odd"})
    assert plain(found) == {"sequence_len": 8}
    assert f"{DOCUMENT}: {flag}: {rule.reason}" in found.notes


VALUES: list[tuple[str, str, Any, dict[str, Any]]] = [
    ("num_train_epochs", "2.5", 2.5, {"num_epochs": 2.5}),
    ("num_train_epochs", "-1", -1, {}),
    ("max_steps", "7", 7, {"max_steps": 7}),
    ("max_steps", "-1", -1, {}),
    ("warmup_steps", "10", 10, {"warmup_steps": 10}),
    ("warmup_steps", "10.9", 10.9, {"warmup_steps": 10}),
    ("warmup_steps", "0.1", 0.1, {"warmup_ratio": 0.1}),
    ("warmup_steps", "0", 0, {"warmup_steps": 0}),
    ("warmup_steps", "1", 1.0, {"warmup_steps": 1}),
    ("torch_dtype", "bfloat16", "torch.bfloat16", {"bf16": True}),
    ("torch_dtype", "float16", "float16", {"fp16": True}),
    ("torch_dtype", "float32", "float32", {"bf16": False, "fp16": False}),
    ("torch_dtype", "auto", "auto", {"bf16": "auto"}),
    ("use_flash_attn", "True", True, {"attn_implementation": "flash_attention_2"}),
    ("use_flash_attn", "false", False, {"attn_implementation": "sdpa"}),
    ("embedding_size_multiple_of", "1", 1, {}),
    ("embedding_size_multiple_of", "32", 32, {"resize_token_embeddings_to_32x": True}),
    ("quantization_method", "mxfp4", "mxfp4", {"model_quantization_config": "Mxfp4Config"}),
    ("dequantize", "true", True, {"model_quantization_config_kwargs": {"dequantize": True}}),
    (
        "validation_data_path", "v.jsonl", "v.jsonl",
        {"test_datasets": [{"path": "v.jsonl", "split": "train"}]},
    ),
    ("training_data_path", "t.jsonl", "t.jsonl", {"datasets": [{"path": "t.jsonl"}]}),
    ("dataset_text_field", "output", "output", {"datasets": [{"field": "output"}]}),
    (
        "dataset_conversation_field", "talk", "talk",
        {"datasets": [{"field_messages": "talk"}]},
    ),
    (
        "data_formatter_template", "Q: {{Tweet text}}\\nA: {{label}}",
        "Q: {{Tweet text}}\nA: {{label}}",
        {"datasets": [{"input_format": "Q: {{Tweet text}}\nA: {{label}}"}]},
    ),
    ("response_template", "\\n### Label:", "\n### Label:", {"response_template": "\n### Label:"}),
    ("response_template", "a\\\\n\\t", "a\\\\n\\t", {"response_template": "a\\n\t"}),
    ("instruction_template", "\\tQ:", "\\tQ:", {"instruction_template": "\tQ:"}),
    ("chat_template", "chatml", "chatml", {"chat_template": "chatml"}),
    (
        "chat_template", "{{ x }}\\n", "{{ x }}\n",
        {"chat_template": "jinja", "chat_template_jinja": "{{ x }}\n"},
    ),
    (
        "add_special_tokens", '["<a>", "<b>"]', ["<a>", "<b>"],
        {"special_tokens": {"additional_special_tokens": ["<a>", "<b>"]}},
    ),
    ("padding_free", "huggingface", ["huggingface"], {"batch_flattening": True}),
    ("train_sampling_strategy", "random", "random", {}),
    ("train_sampling_strategy", "group_by_length", "group_by_length", {"group_by_length": True}),
    (
        "train_sampling_strategy", "sequential", "sequential",
        {"curriculum_sampling": True, "shuffle_merged_datasets": False},
    ),
    ("target_modules", "q_proj,v_proj", ["q_proj", "v_proj"],
     {"lora_target_modules": ["q_proj", "v_proj"]}),
    ("target_modules", "q_proj", "q_proj", {"lora_target_modules": ["q_proj"]}),
    ("target_modules", "all-linear", ["all-linear"], {"lora_target_linear": True}),
    ("r", "4", 4, {"lora_r": 4}),
    ("report_to", "wandb", ["wandb"], {"use_wandb": True}),
    ("report_to", "MLflow", "mlflow", {"use_mlflow": True}),
    ("report_to", "none", "none", {"use_wandb": False}),
    ("report_to", "none", [], {"use_wandb": False}),
    ("trackers", "file_logger", ["file_logger"], {}),
    ("trackers", '["file_logger", "tensorboard"]', ["tensorboard"], {"use_tensorboard": True}),
    (
        "run_name", "a", "a",
        {"wandb_name": "a", "mlflow_run_name": "a", "trackio_run_name": "a"},
    ),
    ("log_level", "passive", "passive", {}),
    ("log_level", "detail", "DEBUG", {"SFT_LOG_LEVEL": "DEBUG"}),
    ("log_level", "critical", "error", {"SFT_LOG_LEVEL": "ERROR"}),
    ("resume_from_checkpoint", "True", True, {}),
    ("resume_from_checkpoint", "latest", "latest", {}),
    ("resume_from_checkpoint", "false", False, {}),
    ("save_strategy", "no", False, {"save_strategy": "no"}),
    ("save_strategy", "epoch", "epoch", {"save_strategy": "epoch"}),
    ("eval_strategy", "steps", "steps", {"eval_strategy": "steps"}),
    ("evaluation_strategy", "no", False, {"eval_strategy": "no"}),
    ("resume_from_checkpoint", "/c", "/c", {"resume_from_checkpoint": "/c"}),
    ("hub_private_repo", "false", False, {"SFT_PUSH_PRIVATE": False}),
    ("hub_private_repo", "null", None, {}),
    ("use_cpu", "true", True, {"SFT_DEVICE": "cpu"}),
    ("no_cuda", "false", False, {}),
    ("optim", "adamw_torch", "adamw_torch", {"optimizer": "adamw_torch"}),
    ("lr_scheduler_type", "linear", "linear", {"lr_scheduler": "linear"}),
    ("learning_rate", "1e-5", "1e-5", {"learning_rate": 1e-5}),
    ("gradient_checkpointing_kwargs", '{"use_reentrant": false}', {"use_reentrant": False},
     {"gradient_checkpointing_kwargs": {"use_reentrant": False}}),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "text", "value", "keys"), VALUES)
def test_a_value_means_the_same_as_a_variable_and_in_json(
    flag: str, text: str, value: Any, keys: dict[str, Any]
) -> None:
    assert plain(loaded({"max_seq_length": 8, flag: value})) == {"sequence_len": 8, **keys}
    name = f"SFT_{flag.upper()}"
    if name not in OWN:  # SFT_LOG_LEVEL is a setting of its own
        assert plain(loaded({}, **{name: text})) == keys


REFUSED = [
    ("warmup_steps", -1, "'-1' is not allowed"),
    ("torch_dtype", "int8", "int8 is none of bfloat16, float16, float32, auto"),
    ("embedding_size_multiple_of", 8, "8 is not supported: Axolotl pads"),
    ("quantization_method", "int4", "int4 is not mxfp4"),
    ("train_sampling_strategy", "odd", "odd is none of random, group_by_length, sequential"),
    ("peft_method", "pt", "pt is not in Axolotl; lora or none"),
    ("peft_method", "alora", "activated LoRA is not in Axolotl"),
    ("report_to", ["wandb", "neptune"], "neptune is none of wandb, mlflow"),
    ("trackers", ["aim"], "aim is none of wandb, mlflow"),
    ("log_level", "loud", "loud is none of passive, detail, debug"),
    ("liger_kernel_config", {"odd": True}, "odd is none of rope, rms_norm"),
    ("num_train_epochs", "many", "'many'"),
    ("use_flash_attn", "perhaps", "true or false"),
    ("bias", "all", "Axolotl trains no biases"),
    ("prediction", 1, "no such setting"),
]


@pytest.mark.parametrize(("flag", "value", "told"), REFUSED)
def test_a_value_without_a_meaning_is_one_line_with_the_name_as_typed(
    flag: str, value: Any, told: str
) -> None:
    [line] = refused({"max_seq_length": 8, flag: value})
    assert line.startswith(f"{DOCUMENT}: {flag}: ")
    assert told in line
    name = f"SFT_{flag.upper()}"
    if name not in OWN:
        [line] = refused({}, **{name: sources.as_text(value)})
        assert line.startswith(f"{name}: ")
        assert told in line


@pytest.mark.parametrize(
    ("environ", "keys"),
    [
        ({"SFT_TORCH_DTYPE": "bfloat16", "SFT_BF16": "true"}, {"bf16": None}),
        ({"SFT_TORCH_DTYPE": "float32", "SFT_BF16": "true"}, {"bf16": None}),
        (
            {"SFT_TORCH_DTYPE": "float32", "SFT_FP16": "false"},
            {"fp16": None, "bf16": False},
        ),
        (
            {"SFT_USE_FLASH_ATTN": "true", "SFT_FLASH_ATTN_IMPLEMENTATION": "x/flash3"},
            {"attn_implementation": None},
        ),
        ({"SFT_WARMUP_STEPS": "0", "SFT_WARMUP_RATIO": "0.1"}, {"warmup_ratio": None}),
        ({"SFT_REPORT_TO": "none", "SFT_TRACKERS": "mlflow"}, {"use_mlflow": True}),
        (
            {"SFT_USE_LIGER_KERNEL": "true"},
            dict.fromkeys(
                ("liger_rope", "liger_rms_norm", "liger_glu_activation",
                 "liger_fused_linear_cross_entropy"), True,
            ),
        ),
        (
            {
                "SFT_USE_LIGER_KERNEL": "true",
                "SFT_LIGER_KERNEL_CONFIG": '{"rope": false, "cross_entropy": true,'
                ' "fused_linear_cross_entropy": false}',
            },
            {
                "liger_rope": False, "liger_rms_norm": True, "liger_glu_activation": True,
                "liger_cross_entropy": True, "liger_fused_linear_cross_entropy": False,
            },
        ),
        ({"SFT_LIGER_KERNEL_CONFIG": '{"rope": true}'}, {}),
        ({"SFT_USE_LIGER_KERNEL": "false"}, {}),
    ],
)  # fmt: skip
def test_neighbours_that_say_more_about_one_thing_get_along(
    environ: dict[str, str], keys: dict[str, Any]
) -> None:
    """None: the entry passes as it is, and is typed later."""
    assert made(**environ) == keys


def test_a_data_type_against_the_arithmetic_is_one_meaning_twice() -> None:
    [line] = refused({}, SFT_TORCH_DTYPE="bfloat16", SFT_BF16="false")
    assert "SFT_BF16" in line
    assert "SFT_TORCH_DTYPE" in line


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"model_name_or_path": "a"}, "transformers' TrainingArguments"),
        ({"num_train_epochs": 1, "lora_r": 8}, "transformers' TrainingArguments"),
        ({"model_name_or_path": "a", "training_data_path": "b"}, "the SFT trainer"),
        ({"model_name_or_path": "a", "peft_method": "lora"}, "the SFT trainer"),
        ({"train": {"base_model": "a"}}, "the compose pipeline"),
        ({"paths": {}, "naming": {"force_run_index": 3}}, "the compose pipeline"),
        ({"training_params": {"learning_rate": 1e-3}}, "the industrial pipeline's training"),
        ({"output_params": {"sequence_length": 9}}, "the industrial pipeline's data"),
    ],
)
def test_a_dialect_is_told_by_its_top_keys(document: dict[str, Any], told: str) -> None:
    assert f"{DOCUMENT}: is read as a configuration of {told}" in loaded(document).notes


def test_a_document_with_axolotls_keys_alone_stays_untouched() -> None:
    """What a flag of the trainer's would change has another meaning here."""
    document = {"learning_rate": 1e-3, "warmup_steps": 0, "chat_template": "chatml", "lora_r": 4,
                "adapter": None}  # fmt: skip
    found = loaded(document)
    assert {key: s.value for key, s in found.axolotl.items()} == document
    assert not found.notes


def test_a_document_may_mix_the_trainers_names_with_axolotls() -> None:
    found = loaded({"model_name_or_path": "a", "micro_batch_size": 2, "SFT_RERUN": True})
    assert plain(found) == {"base_model": "a", "micro_batch_size": 2, "SFT_RERUN": True}


@pytest.mark.parametrize(
    ("document", "line"),
    [
        (
            {"num_train_epochs": 1, "per_device_train_batchsize": 1},
            "per_device_train_batchsize: no such setting; did you mean per_device_train_batch_size?",
        ),
        (
            {"train": {"learnin_rate": 1}},
            "train.learnin_rate: no such setting; did you mean train.learning_rate?",
        ),
        (
            {"training_params": {}, "lora_config": {"lora_alfa": 1}},
            "lora_config.lora_alfa: no such setting; did you mean lora_config.lora_alpha?",
        ),
        ({"train": {"_note": "x"}}, "train._note: no such setting"),
        ({"output_params": {"zzz": 1}}, "output_params.zzz: no such setting"),
    ],
)
def test_an_unknown_name_is_told_with_the_document_and_the_nearest(
    document: dict[str, Any], line: str
) -> None:
    [told] = refused(document)
    assert told.startswith(f"{DOCUMENT}: {line}")


@pytest.mark.parametrize(
    "document",
    [
        {"num_train_epochs": 1, "response_template": None, "no_such": None},
        {"train": {"epochs": 1, "max_steps": None, "odd": None}},
        {"training_params": {"num_train_epochs": 1, "warmup_ratio": None}},
    ],
)
def test_null_in_a_foreign_document_means_not_set(document: dict[str, Any]) -> None:
    assert plain(loaded(document)) == {"num_epochs": 1}


def test_comments_are_passed_over_in_the_industrial_dialect() -> None:
    document = {
        "_comment": "x", "_comments": {"rate": "y"},
        "training_params": {"_why": "z", "learning_rate": 1e-3},
    }  # fmt: skip
    assert plain(loaded(document)) == {"learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("environ", "document"),
    [
        ({"SFT_MODEL_PATH": "a", "SFT_MODEL_NAME_OR_PATH": "b"}, {}),
        ({"SFT_R": "8", "SFT_LORA_R": "8"}, {}),
        ({}, {"model_name_or_path": "a", "base_model": "b"}),
        ({}, {"num_train_epochs": 1, "num_epochs": 1}),
        ({"SFT_USE_CPU": "true", "SFT_DEVICE": "cuda"}, {}),
    ],
)
def test_one_meaning_twice_in_one_layer_names_both(
    environ: dict[str, str], document: dict[str, Any]
) -> None:
    [line] = refused(document, **environ)
    for name in [*environ, *document]:
        assert name in line


def test_one_meaning_in_two_layers_is_no_error_and_the_stronger_counts() -> None:
    found = loaded({"num_train_epochs": 3, "peft_method": "lora"}, SFT_NUM_TRAIN_EPOCHS="1")
    assert found.axolotl["num_epochs"].value == 1


@pytest.mark.parametrize(
    ("document", "environ", "adapter"),
    [
        ({"num_train_epochs": 1}, {}, None),
        ({"num_train_epochs": 1, "peft_method": None}, {}, None),
        ({"num_train_epochs": 1, "peft_method": "none"}, {}, None),
        ({"num_train_epochs": 1, "peft_method": "LoRA"}, {}, "lora"),
        ({"num_train_epochs": 1, "adapter": "qlora"}, {}, "qlora"),
        ({"num_train_epochs": 1}, {"SFT_PEFT_METHOD": "lora"}, "lora"),
        ({"num_train_epochs": 1}, {"AXOLOTL_ADAPTER": "qlora"}, "qlora"),
        ({"num_train_epochs": 1}, {"SFT_PROFILE": "memory-tight"}, "qlora"),
        ({"peft_method": "lora"}, {"SFT_PEFT_METHOD": "none"}, None),
    ],
)
def test_without_a_peft_method_the_trainer_trains_all_weights(
    document: dict[str, Any], environ: dict[str, str], adapter: str | None
) -> None:
    assert loaded(document, **environ).axolotl["adapter"].value == adapter


def test_what_a_dialect_implies_is_weaker_than_a_weaker_document(tmp_path: Any) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"peft_method": "lora"}')
    found = loaded({"num_train_epochs": 1}, SFT_TRAINER_CONFIG_JSON_PATH=str(path))
    assert found.axolotl["adapter"].value == "lora"


def test_variables_imply_what_their_file_does_where_they_name_its_data() -> None:
    assert not added(loaded({}, SFT_MODEL_NAME_OR_PATH="a"))
    file = {"model_name_or_path": "a", "training_data_path": "b"}
    variables = {f"SFT_{name.upper()}": value for name, value in file.items()}
    assert added(loaded({}, **variables)) == added(loaded(file)) != {}


COMPOSE: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"preprocess": {"sample_size": 100}}, {"SFT_SAMPLE_SIZE": 100}),
    ({"preprocess": {"sample_size": "full"}}, {}),
    ({"preprocess": {"dataset_name": "a/b"}}, {"datasets": [{"type": "alpaca", "path": "a/b"}]}),
    ({"preprocess": {"dataset_name": "./b.jsonl"}}, {"datasets": [{"path": "./b.jsonl"}]}),
    ({"preprocess": {"cutoff_len": 64}}, {"sequence_len": 64}),
    ({"preprocess": {"filter_langs": ["en", "fr"]}}, {"SFT_LANGUAGES": ["en", "fr"]}),
    ({"preprocess": {"filter_langs": "it"}}, {"SFT_LANGUAGES": ["it"]}),
    ({"preprocess": {"filter_langs": []}}, {}),
    ({"preprocess": {"filter_langs": None, "max_workers": 3, "seed": 5, "pack_sequences": False}},
     {"dataset_num_proc": 3, "seed": 5, "sample_packing": False}),
    ({"preprocess": {"save_splits": True}, "paths": {"prepared_dir": "/p"}},
     {"SFT_SAVE_SPLITS": True, "SFT_PREPARED_DIR": "/p"}),
    ({"preprocess": {"cutoff_len": 64}, "train": {"cutoff_len": 32}}, {"sequence_len": 32}),
    ({"preprocess": {"test_size": 0.05}}, {"val_set_size": 0.05}),
    (
        {"train": {"lr_scheduler": "cosine", "learning_rate": "2e-4", "min_learning_rate": "1e-4"}},
        {"lr_scheduler": "cosine", "learning_rate": 2e-4, "cosine_min_lr_ratio": 0.5},
    ),
    (
        {"train": {"lr_scheduler": "linear", "min_learning_rate": 1e-6}},
        {"lr_scheduler": "linear"},
    ),
    (
        {"train": {"lr_scheduler": "cosine_with_min_lr", "min_learning_rate": 1e-6}},
        {"lr_scheduler": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 1e-6}},
    ),
    ({"train": {"bf16": True, "fp16": True}}, {"bf16": True}),
    ({"train": {"bf16": False, "fp16": True}}, {"bf16": False, "fp16": True}),
    ({"train": {"resume_from": "latest"}}, {}),
    ({"train": {"resume_from": "/c"}}, {"resume_from_checkpoint": "/c"}),
    ({"train": {"batch_size": 2}}, {"micro_batch_size": 2}),
    ({"logging": {"console_level": "info"}}, {"SFT_LOG_LEVEL": "INFO"}),
    ({"logging": {"console_level": "info", "debug_pipeline": True}}, {"SFT_LOG_LEVEL": "DEBUG"}),
    ({"paths": {"huggingface_cache": "/c", "data_root": "/d"}},
     {"SFT_CACHE_DIR": "/c", "DATA_ROOT": "/d"}),
    ({"paths": {"huggingface_cache": "${HOME}/c"}}, {}),
    ({"train": {}, "naming": {"force_run_index": 4}}, {"FORCE_RUN_INDEX": 4}),
    ({"train": {}, "orchestration": {"post_finetune": ["convert-awq"]}, "awq": {"num_calibration_samples": 9}},
     {"SFT_QUANTISE": "w4a16", "SFT_CALIBRATION_SAMPLES": 9}),
    ({"train": {}, "awq": {"enabled": False, "scheme": "symmetric", "output_suffix": "q"}}, {}),
    (
        {"train": {}, "serve": {"port": 1, "served_model_name": "a", "model_name": "b"}},
        {"SFT_SERVE_ARGS": {"port": 1, "served_model_name": ["b"]}},
    ),
    (
        {"train": {}, "orchestration": {"post_finetune": ["serve-vllm", "export-merged"]}},
        {"SFT_SERVE": True, "SFT_MERGE": True},
    ),
    ({"train": {}, "orchestration": {"post_finetune": ["convert-awq"]}, "awq": {"enabled": False}}, {}),
    ({"train": {}, "eval": {"prompts": [{"instruction": "Say it.", "max_sentences": 2}]}},
     {"SFT_EVAL_PROMPTS": [{"instruction": "Say it.", "max_sentences": 2}]}),
    ({"train": {}, "eval": {"max_new_tokens": 64, "temperature": 0.7, "top_p": 0.9}},
     {"SFT_EVAL_GENERATION": {"max_new_tokens": 64, "temperature": 0.7, "top_p": 0.9}}),
    ({"train": {}, "eval": {"max_new_tokens": None, "top_p": 0.9, "cutoff_len": 9}},
     {"SFT_EVAL_GENERATION": {"top_p": 0.9}}),
]  # fmt: skip


@pytest.mark.parametrize(("document", "keys"), COMPOSE)
def test_the_compose_pipelines_yaml(document: dict[str, Any], keys: dict[str, Any]) -> None:
    assert plain(loaded(document)) == keys


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"preprocess": {"sample_size": -3}}, "preprocess.sample_size: cannot be obeyed: -3"),
        ({"preprocess": {"sample_size": True}}, "'true' is not allowed"),
        (
            {"train": {"lr_scheduler": "cosine", "learning_rate": 1e-6, "min_learning_rate": 1e-5}},
            "has to be smaller",
        ),
        ({"train": {}, "awq": {"extra_args": ["--x"]}}, "SFT_QUANTISE has its own settings"),
        ({"logging": {"console_level": "loud"}}, "logging.console_level: "),
        (
            {"train": {}, "awq": {"method": "gguf"}},
            "awq.method: cannot be obeyed: 4-bit weights are made by awq",
        ),
        ({"train": {}, "awq": {"bits": 4}}, "awq.bits: no such setting"),
        ({"train": {}, "export": {"x": 1}}, "export.x: no such setting"),
        (
            {"train": {}, "orchestration": {"post_finetune": ["deploy"]}},
            "orchestration.post_finetune: 'deploy' is not allowed at [0]; allowed: one of export-merged",
        ),
    ],
)
def test_what_the_compose_pipeline_cannot_have_is_one_line(
    document: dict[str, Any], told: str
) -> None:
    [line] = refused(document)
    assert told in line


def test_the_industrial_pipelines_data() -> None:
    found = loaded(
        {
            "name": "x",
            "template": "instruct",
            "datasets": [
                {"dataset_name": "a/b", "subset": "en", "split": "test", "max_samples": 9,
                 "text_fields": {"prompt": "question", "response": "answer"}, "weight": 0.7},
                {"dataset_name": "c.json", "type": "json", "weight": 0.3},
            ],
            "output_params": {"sequence_length": 64, "train_ratio": 0.9},
            "quality_filters": {
                "min_prompt_length": 3, "max_prompt_length": 30, "min_response_length": 4,
                "max_response_length": 40, "filter_urls": False, "remove_duplicates": True,
                "deduplication": {"threshold": 0.85, "num_perm": 128}, "_why": "a comment",
            },
            "sampling_strategy": {"mode": "target_tokens", "target_tokens": 900, "seed": 42,
                                  "target_conversations": None, "max_samples_per_dataset": 50},
        }
    )  # fmt: skip
    head = "### Instruction:\n{{%s}}\n\n### Response:\n{{%s}}"
    assert plain(found) == {
        "response_template": "### Response:\n",
        "datasets": [
            {"path": "a/b", "name": "en", "split": "test[:9]",
             "input_format": head % ("question", "answer")},
            {"path": "c.json", "ds_type": "json", "input_format": head % ("prompt", "response")},
        ],
        "sequence_len": 64,
        "val_set_size": 0.1,
        "dataset_exact_deduplication": True,
        "SFT_DATA_WEIGHTS": [0.7, 0.3],
        "SFT_SAMPLE_SIZE": 50,
        "SFT_MIN_PROMPT_LENGTH": 3,
        "SFT_MAX_PROMPT_LENGTH": 30,
        "SFT_MIN_RESPONSE_LENGTH": 4,
        "SFT_MAX_RESPONSE_LENGTH": 40,
        "SFT_FILTER_URLS": False,
    }  # fmt: skip
    assert found.get("SFT_FILTER_CODE_BLOCKS") is True  # its preparation's own, where it is silent
    notes = "\n".join(found.notes)
    assert "own hold: quality_filters.filter_code_blocks true" in notes
    assert "not taken up to a budget" in notes
    assert "rows that are only alike train" in notes


@pytest.mark.parametrize(
    ("weights", "made"),
    [
        ([None], None),
        ([1.0], None),
        ([None, None], None),
        ([1.0, 1.0], [1.0, 1.0]),
        ([None, 3], [1, 3]),
        ([0.7, 0.2, 0.1], [0.7, 0.2, 0.1]),
    ],
)
def test_weights_that_are_named_are_shares(weights: list[Any], made: list[Any] | None) -> None:
    sets = [
        {"dataset_name": f"a/{n}", **({"weight": weight} if weight else {})}
        for n, weight in enumerate(weights)
    ]
    assert plain(loaded({"template": "chat", "datasets": sets})).get("SFT_DATA_WEIGHTS") == made


def test_what_a_data_set_of_the_industrial_pipeline_asks_beyond_its_columns_is_told() -> None:
    sets = [{"name": "talk", "dataset_name": "a/b", "custom_processing": {"min_score": 2}}]
    notes = "\n".join(loaded({"template": "chat", "datasets": sets}).notes)
    assert "the custom_processing of talk is not done" in notes
    [line] = refused({"template": "chat", "datasets": [{"path": "a.jsonl", "type": "json"}]})
    assert "datasets: cannot be obeyed: [0] has no dataset_name" in line
    [line] = refused({"template": "chat", "quality_filters": {"min_length": 3}})
    assert "quality_filters.min_length: no such setting; did you mean quality_filters.m" in line


@pytest.mark.parametrize("template", industrial._TEMPLATES)
def test_each_template_of_the_industrial_pipeline_holds_its_mark_and_both_columns(
    template: str,
) -> None:
    layout, mark = industrial._TEMPLATES[template]
    assert layout.index("{prompt}") < layout.index(mark) < layout.index("{response}")


def test_the_industrial_pipelines_training() -> None:
    found = loaded(
        {
            "training_params": {
                "per_device_train_batch_size": 3, "warmup_steps": 0.1, "report_to": "none",
                "torch_dtype": "bfloat16", "bf16": True,
            },
            "lora_config": {"r": 4, "lora_alpha": 8, "target_modules": ["q"], "bias": "none",
                            "task_type": "CAUSAL_LM"},
            "checkpointing": {"save_steps": 5},
            "hardware_optimization": {"dataloader_num_workers": 2, "max_memory_mb": 9},
            "dataset_config": {"packing": False},
            "evaluation_config": {"eval_prompts": ["Hello?"], "generation_config": {"top_p": 0.9}},
        }
    )  # fmt: skip
    assert plain(found) == {
        "micro_batch_size": 3, "warmup_ratio": 0.1, "use_wandb": False, "bf16": True,
        "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q"], "save_steps": 5,
        "dataloader_num_workers": 2, "SFT_EVAL_PROMPTS": ["Hello?"],
        "SFT_EVAL_GENERATION": {"top_p": 0.9},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"output_params": {"train_ratio": 0}}, "0 is not between 0 and 1"),
        ({"output_params": {}, "template": "odd"}, "odd is none of chatml, instruct"),
        ({"output_params": {}, "datasets": {"a": 1}}, "has to be a list of objects"),
        ({"lora_config": {"bias": "all"}}, "lora_config.bias: cannot be obeyed"),
    ],
)
def test_what_the_industrial_pipeline_cannot_have_is_one_line(
    document: dict[str, Any], told: str
) -> None:
    [line] = refused(document)
    assert told in line


def test_every_problem_of_a_foreign_document_is_told_at_once() -> None:
    document = {"num_train_epochs": "x", "bias": "all", "lerning_rate": 1, "r": -1}
    assert len(refused(document)) == 4


def test_a_flag_in_the_wrong_case_is_no_flag() -> None:
    [line] = refused({}, sft_num_train_epochs="1")
    assert "did you mean SFT_NUM_TRAIN_EPOCHS?" in line


def test_a_token_in_a_foreign_document_is_refused_and_not_repeated() -> None:
    [line] = refused({"model_name_or_path": "a", "hub_token": "hf_plant"})
    assert "HF_TOKEN" in line
    assert "hf_plant" not in line


LAUNCHED: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"main_process_port": 1234}, {"SFT_ACCELERATE_LAUNCH_ARGS": {"main_process_port": 1234}}),
    ({"num_processes": 2, "same_network": True, "rdzv_backend": "static", "machine_rank": 0},
     {"SFT_ACCELERATE_LAUNCH_ARGS": {"num_processes": 2}}),
    ({"main_training_function": "main", "tpu_use_sudo": False, "downcast_bf16": "no",
      "dynamo_backend": "no", "use_cpu": False, "tpu_env": []}, {}),
    ({"mixed_precision": "no"}, {}),
    ({"mixed_precision": "bf16"}, {"bf16": True}),
    ({"use_fsdp": True, "fsdp_sharding_strategy": 1, "fsdp_state_dict_type": "FULL_STATE_DICT",
      "fsdp_cpu_ram_efficient_loading": True, "fsdp_sync_module_states": True,
      "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}, {}),
    ({"fsdp-offload-params": "true"}, {"fsdp_config": {"offload_params": True}}),
    ({"fsdp_sharding_strategy": "NO_SHARD"}, {"SFT_ACCELERATE_PRESET": "ddp"}),
    ({"fsdp_sharding_strategy": 2}, {"fsdp_config": {"reshard_after_forward": False}}),
    ({"config_file": "/app/accelerate_fsdp_defaults.yaml"}, {}),
    ({"config_file": "mine.yaml"}, {"SFT_ACCELERATE_LAUNCH_ARGS": {"config_file": "mine.yaml"}}),
    ({}, {"SFT_ACCELERATE_LAUNCH_ARGS": {}}),
]  # fmt: skip


@pytest.mark.parametrize(("flags", "keys"), LAUNCHED)
@pytest.mark.parametrize("name", ["accelerate_launch_args", "multiGPU"])
def test_flags_of_the_launcher_that_say_nothing_are_dropped(
    name: str, flags: dict[str, Any], keys: dict[str, Any]
) -> None:
    assert plain(loaded({name: flags})) == keys


def test_a_precision_of_the_launcher_is_weaker_than_the_trainers_own() -> None:
    found = loaded(
        {"torch_dtype": "float16", "accelerate_launch_args": {"mixed_precision": "bf16"}}
    )
    assert plain(found) == {"fp16": True}
    assert any("mixed_precision: torch_dtype counts" in note for note in found.notes)


def test_every_rule_that_makes_something_is_tried_above() -> None:
    tried = {flag for flag, *_ in [*VALUES, *REFUSED]} | {"peft_method", "use_liger_kernel"}
    tried |= {"accelerate_launch_args", "multiGPU"}  # LAUNCHED
    assert {f for f, r in trainer.TABLE.items() if isinstance(r, Becomes)} <= tried | {"tracker"}


@pytest.mark.parametrize(
    ("keys", "strategy", "weights"),
    [
        ({"mix_strategy": "concat", "interleave_probs": "0.7,0.3"}, "all_exhausted", None),
        ({"mix_strategy": "interleave_under"}, "first_exhausted", [1, 1]),
        (
            {"mix_strategy": "interleave_over", "interleave_probs": "0.7, 0.3"},
            "all_exhausted",
            [0.7, 0.3],
        ),
        (
            {"mix_strategy": "interleave_over", "interleave_probs": [0.7, 0.3]},
            "all_exhausted",
            [0.7, 0.3],
        ),
    ],
)
def test_llamafactorys_mixture_is_one_of_shares(
    keys: dict[str, Any], strategy: str, weights: list[float] | None
) -> None:
    told = {
        "stage": "sft",
        "finetuning_type": "lora",
        "dataset_dir": "ONLINE",
        "dataset": "a/b,a/c",
    }
    found = loaded({**told, **keys})
    assert found.get("SFT_INTERLEAVE_STRATEGY") == strategy
    assert found.get("SFT_DATA_WEIGHTS") == weights


def test_a_mixture_that_llamafactory_never_had_is_refused() -> None:
    told = {
        "stage": "sft",
        "finetuning_type": "lora",
        "dataset_dir": "ONLINE",
        "dataset": "a/b,a/c",
    }
    [line] = refused({**told, "mix_strategy": "shake"})
    assert "mix_strategy: cannot be obeyed: shake is none of concat" in line
    [line] = refused({**told, "mix_strategy": "interleave_over", "interleave_probs": "most"})
    assert "the interleave_probs most are no numbers" in line

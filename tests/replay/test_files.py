"""Files of other tools whole, by each door: the same values, and Axolotl's own word on them.

Of the sources' files the keys and values are as their repositories have them; only places of
models and data, and prompts, are others.
"""

import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from envtune.checks import axolotl_validation
from envtune.errors import Refused
from envtune.machine.pretended import pretend
from envtune.resolve.rules import resolve
from envtune.settings import given, loading, sources
from envtune.settings.typed import Settings
from tests.harness import ROOT, clean_environ
from tests.replay import test_compose, test_industrial, test_trainer
from tests.unit.builders import make_facts

FILE, BASE64, TEMPLATE = (
    "SFT_TRAINER_CONFIG_JSON_PATH", "SFT_TRAINER_CONFIG_JSON_ENV_VAR", "SFT_TEMPLATE",
)  # fmt: skip
Document = dict[str, Any]

# What the trainer's launch test starts its image with.
LAUNCHED: Document = {
    "model_name_or_path": "acme/tiny", "training_data_path": "rows.jsonl", "output_dir": "tmp",
    "num_train_epochs": 5, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 4, "learning_rate": 0.00001, "weight_decay": 0,
    "warmup_ratio": 0.03, "lr_scheduler_type": "cosine", "logging_steps": 1,
    "include_tokens_per_second": True, "packing": False, "response_template": "\n### Label:",
    "dataset_text_field": "output", "use_flash_attn": False, "torch_dtype": "float32",
    "max_seq_length": 4096,
}  # fmt: skip
TUNED = LAUNCHED | {"peft_method": "lora", "r": 8, "lora_alpha": 32, "lora_dropout": 0.05,
                    "save_model_dir": "tmp", "lora_post_process_for_vllm": True}  # fmt: skip
SHARDED = {
    "use_fsdp": True, "num_machines": 1, "main_process_port": 1234,
    "fsdp_backward_prefetch_policy": "TRANSFORMER_BASED_WRAP", "fsdp_sharding_strategy": 1,
    "fsdp_state_dict_type": "FULL_STATE_DICT", "fsdp_cpu_ram_efficient_loading": True,
    "fsdp_sync_module_states": True,
}  # fmt: skip
# A job in use on a cluster: what `accelerate config` writes, and a plain `no` of YAML 1.1.
CLUSTER: Document = {
    **{name: LAUNCHED[name] for name in (
        "model_name_or_path", "training_data_path", "response_template", "output_dir",
        "dataset_text_field", "include_tokens_per_second")},
    "save_model_dir": "out",
    "accelerate_launch_args": {
        "num_processes": 1, "num_machines": 1, "mixed_precision": "bf16",
        "dynamo_backend": "no", "downcast_bf16": "no", "main_training_function": "main",
        "rdzv_backend": "static", "same_network": True, "tpu_use_sudo": False,
        "config_file": "/app/accelerate_fsdp_defaults.yaml",
    },
    "num_train_epochs": 1, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4,
    "gradient_accumulation_steps": 4, "eval_strategy": "no", "save_strategy": False,
    "learning_rate": 1e-5, "weight_decay": 0, "lr_scheduler_type": "cosine",
    "max_seq_length": 128, "use_flash_attn": True, "max_steps": 2, "torch_dtype": "bfloat16",
    "packing": True,
}  # fmt: skip
KUBEFLOW: Document = {
    "model_name_or_path": "bigscience/bloom-560m", "training_data_path": "rows.jsonl",
    "output_dir": "/data/output", "num_train_epochs": 10.0, "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 4, "learning_rate": 1e-05,
    "response_template": "\n### Label:", "dataset_text_field": "output",
}  # fmt: skip
# A pod's template: Axolotl's own names.
POD: Document = {
    "base_model": "acme/tiny", "datasets": [{"path": "acme/rows", "type": "alpaca"}],
    "output_dir": "./outputs/mymodel", "sequence_len": 4096, "adapter": "lora", "lora_r": 8,
    "lora_alpha": 16, "lora_dropout": 0.05, "lora_target_modules": test_compose.TARGETS,
    "gradient_accumulation_steps": 1, "micro_batch_size": 16, "num_epochs": 1,
    "optimizer": "adamw_bnb_8bit", "learning_rate": 0.0002, "load_in_8bit": True,
    "train_on_inputs": False, "bf16": "auto",
}  # fmt: skip
FACTORY: Document = {
    "model_name_or_path": "acme/tiny", "trust_remote_code": True, "stage": "sft",
    "do_train": True, "finetuning_type": "lora", "lora_rank": 8, "lora_target": "all",
    "dataset": "chats,questions", "template": "llama3", "cutoff_len": 2048, "max_samples": 1000,
    "preprocessing_num_workers": 16, "dataloader_num_workers": 4, "output_dir": "saves/tiny",
    "logging_steps": 10, "save_steps": 500, "plot_loss": True, "overwrite_output_dir": True,
    "save_only_model": False, "report_to": "none", "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 8, "learning_rate": 1.0e-4, "num_train_epochs": 3.0,
    "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "bf16": True, "ddp_timeout": 180000000,
    "resume_from_checkpoint": None,
}  # fmt: skip
CAPYBARA: Document = {
    "model_name_or_path": "acme/tiny", "dataset_name": "acme/chats", "learning_rate": 2e-4,
    "num_train_epochs": 1, "packing": True, "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8, "gradient_checkpointing": True, "eos_token": "<|im_end|>",
    "eval_strategy": "steps", "eval_steps": 100, "use_peft": True, "lora_r": 32, "lora_alpha": 16,
    "output_dir": "out",
}  # fmt: skip
HANDBOOK: Document = {
    "model_name_or_path": "acme/tiny", "model_revision": "main", "torch_dtype": "bfloat16",
    "attn_implementation": "sdpa",
    "dataset_mixture": {"datasets": [
        {"id": "acme/chats", "config": "default", "split": "train_sft", "columns": ["messages"],
         "weight": 1.0}], "test_split_size": 0.1, "seed": 0},
    "dataset_num_proc": 12, "bf16": True, "do_eval": True, "eval_strategy": "epoch",
    "gradient_accumulation_steps": 1, "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False}, "learning_rate": 2.0e-05,
    "log_level": "info", "logging_steps": 5, "logging_strategy": "steps",
    "lr_scheduler_type": "cosine", "max_seq_length": 2048, "max_steps": -1,
    "num_train_epochs": 1, "output_dir": "out", "overwrite_output_dir": True,
    "per_device_eval_batch_size": 8, "per_device_train_batch_size": 16,
    "remove_unused_columns": True, "save_strategy": "steps", "save_steps": 100, "seed": 42,
    "warmup_ratio": 0.1, "report_to": ["none"],
}  # fmt: skip

FILES: dict[str, Document] = {
    "compose": test_compose.CONFIG,
    "compose, debug": test_compose.DEBUG,
    "compose, named": test_compose.NAMED,
    "trainer": test_trainer.EXAMPLE,
    "trainer, launched": LAUNCHED,
    "trainer, launched with LoRA": TUNED,
    "trainer, sharded": LAUNCHED | {"accelerate_launch_args": SHARDED},
    "trainer, on a cluster": CLUSTER,
    "trainer, in Kubeflow": KUBEFLOW,
    "pod": POD,
    "industrial training": test_industrial.TRAINING,
    "LLaMA-Factory": FACTORY,
    "LLaMA-Factory, all weights": FACTORY | {"finetuning_type": "full", "lora_target": None,
                                             "lora_rank": None, "deepspeed": "ds_z3_config.json"},
    "LLaMA-Factory, in 4 bits": FACTORY | {"quantization_bit": 4, "quantization_method": "bnb",
                                           "double_quantization": False},
    "LLaMA-Factory, pretraining": FACTORY | {"stage": "pt", "dataset": "pages"},
    "TRL": CAPYBARA,
    "TRL, all weights": {k: v for k, v in CAPYBARA.items() if k != "use_peft"},
    "TRL, in 4 bits": CAPYBARA | {"load_in_4bit": True, "lora_target_modules": ["q_proj"],
                                  "use_bnb_nested_quant": True},
    "TRL, of the Handbook": HANDBOOK,
}  # fmt: skip
TRAINERS = [name for name in FILES if name.startswith("trainer")]

INFO = {
    "chats": {"file_name": "chats.json", "formatting": "sharegpt"},
    "questions": {"file_name": "questions.json"},
    "pages": {"hf_hub_url": "acme/pages", "columns": {"prompt": "page"}, "num_samples": 9},
}


@pytest.fixture(autouse=True)
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of LLaMA-Factory's data, in the one where a run starts."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(INFO))
    monkeypatch.chdir(tmp_path)


def settings(**environ: str) -> Settings:
    return loading.load(sources.with_documents(sources.read(environ=environ)))


def found(made: Settings) -> Document:
    """Every value, without the names of the documents."""
    several = {**made.axolotl, **made.own}
    return {k: s.value for k, s in several.items() if k not in (FILE, BASE64, TEMPLATE)}


def by_file(document: Document, folder: Path) -> Settings:
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return settings(**{FILE: str(folder / "config.yaml")})


def by_json(document: Document, folder: Path) -> Settings:
    (folder / "config.json").write_text(json.dumps(document))
    return settings(**{FILE: str(folder / "config.json")})


def by_base64(document: Document, folder: Path) -> Settings:
    return settings(**{BASE64: base64.b64encode(json.dumps(document).encode()).decode()})


def by_template(document: Document, folder: Path) -> Settings:
    (folder / "template.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    return settings(**{TEMPLATE: str(folder / "template.yaml")})


def by_variables(document: Document, folder: Path) -> Settings:
    """Each key that the file comes to, as Axolotl's own variable or envtune's."""
    named = {
        **{f"AXOLOTL_{key.upper()}": s for key, s in by_json(document, folder).axolotl.items()},
        **by_json(document, folder).own,
    }
    environ = {name: sources.as_text(s.value) for name, s in named.items() if name != FILE}
    return settings(**{name: text for name, text in environ.items() if text.strip()})


# Axolotl reads AXOLOTL_DATASET_NUM_PROC itself.
RESERVED = {"dataset_num_proc"}


@pytest.mark.parametrize("door", [by_json, by_base64, by_template, by_variables])
@pytest.mark.parametrize("name", FILES)
def test_a_file_means_the_same_by_every_door(
    name: str, door: Callable[[Document, Path], Settings], tmp_path: Path
) -> None:
    meant = found(by_file(FILES[name], tmp_path))
    left_out = RESERVED if door is by_variables else set()
    assert found(door(FILES[name], tmp_path)) == {
        key: value for key, value in meant.items() if key not in left_out
    }


@pytest.mark.parametrize("name", TRAINERS)
def test_the_trainers_flags_mean_the_same_as_variables(name: str, tmp_path: Path) -> None:
    flags = {f"SFT_{flag.upper()}": sources.as_text(v) for flag, v in FILES[name].items()}
    assert found(settings(**flags)) == found(by_file(FILES[name], tmp_path))


REFUSED: list[tuple[Document, list[str]]] = [
    (LAUNCHED | {"peft_method": "pt", "prompt_tuning_init": "RANDOM", "num_virtual_tokens": 8,
                 "prompt_tuning_init_text": "hello"}, ["peft_method: "]),
    (LAUNCHED | {"num_train_epochs": "five"}, ["num_train_epochs: "]),
    (LAUNCHED | {"accelerate_launch_args": {"q": True, "num_proces": 2, "env": ["a"]}},
     ["accelerate_launch_args: cannot be obeyed: env", "at .q;", "at .num_proces;"]),
    (test_compose.CONFIG | {"awq": {"bits": 4, "method": "gguf"}, "serve": {"gpu": 1}},
     ["awq.method: ", "awq.bits: ", "serve.gpu: "]),
    (FACTORY | {"stage": "ppo", "reward_model": "a/b", "ppo_epochs": 4}, ["stage: "]),
    (FACTORY | {"stage": "rm", "dataset": "nothing"}, ["stage: "]),
    (FACTORY | {"finetuning_type": "oft", "oft_target": "all"}, ["finetuning_type: "]),
    (FACTORY | {"finetuning_type": "freeze", "freeze_trainable_layers": 2, "use_badam": True},
     ["finetuning_type: ", "use_badam: "]),
    (FACTORY | {"dataset": "nothing", "lora_rnk": 4},
     ["lora_rnk: no such setting; did you mean lora_rank?", "dataset: "]),
    ({"model_name_or_path": "a", "template": "qwen", "infer_backend": "vllm"}, ["infer_backend: "]),
    ({"model_name_or_path": "a", "template": "qwen", "export_dir": "x", "export_size": 5},
     ["export_dir: "]),
    (CAPYBARA | {"dataset_streaming": True, "lora_task_type": "SEQ_CLS", "max_lenght": 9},
     ["dataset_streaming: ", "lora_task_type: ",
      "max_lenght: no such setting; did you mean max_length?"]),
    (CAPYBARA | {"num_generations": 8, "max_completion_length": 9, "use_vllm": True},
     ["num_generations: "]),
]  # fmt: skip


@pytest.mark.parametrize(("document", "lines"), REFUSED)
def test_what_cannot_be_is_a_line_each_all_at_once(
    document: Document, lines: list[str], tmp_path: Path
) -> None:
    with pytest.raises(Refused) as caught:
        by_file(document, tmp_path)
    told = [str(problem) for problem in caught.value.problems]
    assert len(told) == len(lines), told
    for line in lines:
        assert any(line in one for one in told), (line, told)


def asked(document: Document, folder: Path) -> Iterator[tuple[Document, Document]]:
    """A file's YAML for one and for eight H100, and what Axolotl is told of them."""
    (folder / "config.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
    read = sources.read(environ={FILE: str(folder / "config.yaml")})
    typed = given.settings(sources.with_documents(read))
    rows = len(typed.axolotl["datasets"].value) if "datasets" in typed.axolotl else 0
    for name in ("h100", "h100x8"):
        machine = pretend(name)
        facts = make_facts(machine, (("messages",),) * rows, test_columns=(("messages",),))
        config = resolve(typed, facts)
        plain = json.loads(json.dumps(config.plain()))
        yield plain, axolotl_validation.capabilities(config, machine)


def test_axolotl_itself_takes_every_file_for_one_and_for_eight_gpus(tmp_path: Path) -> None:
    whole = {name: d for name, d in FILES.items() if name != "industrial training"}
    questions = [one for document in whole.values() for one in asked(document, tmp_path)]
    (tmp_path / "questions").write_text(json.dumps(questions))
    command = [sys.executable, "-m", "tests.many_configurations", "questions", "answers"]
    environ = clean_environ(AXOLOTL_DO_NOT_TRACK="1", PYTHONPATH=str(ROOT))
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    names = [name for name in whole for _ in range(2)]
    answers = json.loads((tmp_path / "answers").read_text())
    assert not [
        (name, answer["problems"])
        for name, answer in zip(names, answers, strict=True)
        if answer["problems"]
    ]

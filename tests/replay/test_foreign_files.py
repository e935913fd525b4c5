"""What files of other tools mean, what is said of them, and what is refused."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from envtune.errors import Refused
from envtune.settings.typed import Settings
from tests.replay import test_compose, test_trainer
from tests.replay.documents import (
    CAPYBARA,
    FACTORY,
    FILES,
    HANDBOOK,
    LAUNCHED,
    NO_METHOD,
    SHARDED,
    TUNED,
    Document,
)
from tests.replay.doors import (
    BASE64,
    by_base64,
    by_file,
    by_json,
    by_template,
    found,
    settings,
)

pytestmark = pytest.mark.usefixtures("factory")

TOLD: list[tuple[Document, str]] = [
    (TUNED, "save_model_dir: the result lies in the run's adapter/ or model/"),
    (LAUNCHED | {"training_logs_filename": "x"},
     "training_logs_filename: the losses are in the run's metrics.jsonl"),
    (LAUNCHED | {"accelerate_launch_args": SHARDED},
     "FSDP2 shards where there are several GPUs"),
    (test_trainer.EXAMPLE,
     "silent, so the SFT trainer's own hold: gradient_accumulation_steps 1, lr_scheduler_type "
     "linear, warmup_steps 0, peft_method none (all weights train), max_seq_length 4096, packing false"),
    (test_compose.CONFIG | {"train": test_compose.CONFIG["train"] | {"lr_scheduler": "linear"}},
     "train.min_learning_rate: linear ends at 0; only the cosine schedules end at a smallest rate"),
    (FACTORY | {"template": "qwen3_nothink"},
     "template: qwen3_nothink is none of Axolotl's; the tokenizer's own chat template lays out"),
    (FACTORY | {"template": "alpaca"},
     "dataset: rows of instructions are laid out as Alpaca's, in no chat template"),
    (FACTORY | {"deepspeed": "examples/deepspeed/ds_z3_config.json"},
     "ds_z3_config.json is not there; SFT_ACCELERATE_PRESET=zero3 is what it says"),
    (FACTORY, "silent, so LLaMA-Factory's own hold: lora_alpha 16, lora_dropout 0.0, packing false"),
    (NO_METHOD, "lora_r: use_peft is not true, so all weights train, as in TRL"),
    (NO_METHOD, "silent, so TRL's own hold: lr_scheduler_type linear, warmup_steps 0, use_peft "
     "false (all weights train), max_length 1024, assistant_only_loss false"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "line"), TOLD)
def test_what_is_not_followed_and_what_a_tool_adds_is_said(
    document: Document, line: str, tmp_path: Path
) -> None:
    notes = by_file(document, tmp_path).notes
    assert any(line in note for note in notes), notes


_USER = "<|start_header_id|>user<|end_header_id|>\n\n"
_ASSISTANT = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
MEANS: list[tuple[Document, Document]] = [
    (FACTORY, {
        "base_model": "acme/tiny", "adapter": "lora", "lora_r": 8, "lora_alpha": 16,
        "lora_dropout": 0.0, "lora_target_linear": True, "chat_template": "llama3",
        "sequence_len": 2048, "sample_packing": False, "SFT_SAMPLE_SIZE": 1000,
        "dataset_num_proc": 16, "micro_batch_size": 1, "gradient_accumulation_steps": 8,
        "num_epochs": 3.0, "lr_scheduler": "cosine", "warmup_ratio": 0.1, "use_wandb": False,
        "datasets": [
            {"path": "data/chats.json", "type": "chat_template", "field_messages": "conversations",
             "message_property_mappings": {"role": "from", "content": "value"},
             "roles": {"user": ["human"], "assistant": ["gpt", "function_call"],
                       "system": ["system"], "tool": ["observation"]}},
            {"path": "data/questions.json", "type": {
                "field_instruction": "instruction", "field_input": "input",
                "field_output": "output",
                "format": _USER + "{instruction}\n{input}" + _ASSISTANT,
                "no_input_format": _USER + "{instruction}" + _ASSISTANT}},
        ]}),
    ({"model_name_or_path": "a", "finetuning_type": "lora", "dataset": "acme/rows",
      "dataset_dir": "ONLINE", "lora_rank": 16}, {
        "datasets": [{"path": "acme/rows"}], "lora_alpha": 32, "num_epochs": 3.0,
        "micro_batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 5e-05,
        "lr_scheduler": "linear", "warmup_steps": 0}),
    (FILES["LLaMA-Factory, all weights"], {"adapter": None, "SFT_ACCELERATE_PRESET": "zero3"}),
    (FILES["LLaMA-Factory, in 4 bits"], {
        "adapter": "qlora", "load_in_4bit": True,
        "bnb_config_kwargs": {"bnb_4bit_use_double_quant": False}}),
    (FACTORY | {"quantization_bit": 8}, {"adapter": "lora", "load_in_8bit": True}),
    (FILES["LLaMA-Factory, pretraining"], {
        "sample_packing": True, "datasets": [
            {"path": "acme/pages", "split": "train[:9]", "type": "completion", "field": "page"}]}),
    (FACTORY | {"stage": "dpo", "dataset": "pairs", "pref_loss": "orpo", "pref_beta": 0.2}, {
        "rl": "orpo", "rl_beta": 0.2, "datasets": [{"path": "data/pairs.json", "type": {
            "field_prompt": "instruction", "field_chosen": "good", "field_rejected": "bad",
            "prompt_format": _USER + "{prompt}" + _ASSISTANT}}]}),
    (FACTORY | {"stage": "dpo", "dataset": "pairs"}, {"rl": "dpo", "rl_beta": 0.1}),
    (FACTORY | {"pissa_init": True, "lora_target": "q_proj,v_proj", "flash_attn": "fa2",
                "use_dora": True, "val_size": 0.1, "disable_gradient_checkpointing": True,
                "enable_liger_kernel": True, "neat_packing": True, "packing": None}, {
        "peft_init_lora_weights": "pissa_niter_16", "lora_target_modules": ["q_proj", "v_proj"],
        "attn_implementation": "flash_attention_2", "peft_use_dora": True, "val_set_size": 0.1,
        "gradient_checkpointing": False, "liger_rope": True, "sample_packing": True}),
    (CAPYBARA, {
        "adapter": "lora", "lora_r": 32, "lora_alpha": 16, "lora_dropout": 0.05,
        "sequence_len": 1024, "train_on_inputs": True, "sample_packing": True,
        "lr_scheduler": "linear", "special_tokens": {"eos_token": "<|im_end|>"},
        "datasets": [{"path": "acme/chats"}],
        "test_datasets": [{"path": "acme/chats", "split": "test"}]}),
    (NO_METHOD, {"adapter": None}),
    (FILES["TRL, in 4 bits"], {
        "adapter": "qlora", "load_in_4bit": True, "lora_target_modules": ["q_proj"],
        "bnb_config_kwargs": {"bnb_4bit_use_double_quant": True}}),
    (CAPYBARA | {"assistant_only_loss": True, "completion_only_loss": True,
                 "lora_target_modules": "all-linear", "chat_template_path": "t.jinja"},
     {"train_on_inputs": False, "lora_target_linear": True, "chat_template": "jinja",
      "chat_template_jinja": "t.jinja"}),
    ({"model_name_or_path": "a", "dataset_name": "acme/pairs", "beta": 0.2,
      "loss_type": ["ipo"], "max_prompt_length": 64},
     {"rl": "dpo", "rl_beta": 0.2, "dpo_loss_type": ["ipo"], "learning_rate": 1e-06,
      "max_prompt_len": 64}),
    ({"model_name_or_path": "a", "dataset_name": "acme/pairs", "desirable_weight": 0.5},
     {"rl": "kto", "rl_beta": 0.1, "kto_desirable_weight": 0.5}),
    ({"model_name_or_path": "a", "use_peft": False, "datasets": [
        {"path": "acme/chats", "name": "en", "split": "train", "fraction": 0.25}]},
     {"datasets": [{"path": "acme/chats", "name": "en", "split": "train[:25%]"}],
      "micro_batch_size": 8, "num_epochs": 3.0, "learning_rate": 2e-05}),
    (HANDBOOK, {"val_set_size": 0.1, "sequence_len": 2048, "datasets": [
        {"path": "acme/chats", "name": "default", "split": "train_sft"}]}),
]  # fmt: skip


@pytest.mark.parametrize(("document", "keys"), MEANS)
def test_what_a_file_means(document: Document, keys: Document, tmp_path: Path) -> None:
    meant = found(by_file(document, tmp_path))
    assert {key: meant.get(key, "absent") for key in keys} == keys


def test_data_sets_that_are_set_take_the_place_of_names_that_nothing_describes(
    tmp_path: Path,
) -> None:
    document = base64.b64encode(json.dumps(FACTORY | {"dataset": "nothing"}).encode()).decode()
    rows = '[{"path": "acme/rows", "type": "alpaca"}]'
    made = settings(**{BASE64: document, "AXOLOTL_DATASETS": rows})
    assert found(made)["datasets"] == json.loads(rows)


FOREIGN: list[tuple[Document, str]] = [
    ({"model": {"_component_": "torchtune.models.llama3.llama3_8b"}, "batch_size": 4}, "torchtune"),
    ({"dataset": [{"_component_": "torchtune.datasets.alpaca_dataset"}]}, "torchtune"),
    ({"model_name": "a", "max_seq_length": 9, "r": 16}, "Unsloth"),
    ({"model": "a", "model_class": "llm", "template": "qwen3"}, "LLaMA-Factory's v1"),
    ({"model": "a", "tuner_type": "lora", "dataset": "b"}, "ms-swift"),
    ({"compute_environment": "LOCAL_MACHINE", "distributed_type": "FSDP"}, "accelerate"),
    ({"zero_optimization": {"stage": 3}, "bf16": {"enabled": "auto"}}, "DeepSpeed"),
    ({"peft_type": "LORA", "r": 8, "target_modules": ["q_proj"]}, "PEFT"),
    ({"architectures": ["LlamaForCausalLM"], "model_type": "llama"}, "a model"),
    ({"apiVersion": "v1", "kind": "ConfigMap", "data": {}}, "Kubernetes"),
]


@pytest.mark.parametrize("door", [by_json, by_base64, by_template])
@pytest.mark.parametrize(("document", "name"), FOREIGN)
def test_a_file_of_a_tool_that_is_not_read_is_one_line(
    document: Document, name: str, door: Callable[[Document, Path], Settings], tmp_path: Path
) -> None:
    with pytest.raises(Refused) as caught:
        door(document, tmp_path)
    [problem] = caught.value.problems
    assert f"is a file of {name}, which is not translated; " in problem.message


REFUSED: list[tuple[Document, list[str]]] = [
    ({"model_name_or_path": "a", "use_peft": True, "dataset_mixer": {"a/b": 1.0}},
     ["dataset_mixer: cannot be obeyed: weights and splits of a mixture are not followed; set "
      "AXOLOTL_DATASETS"]),
    (FACTORY | {"dataset": "pictures"}, ["dataset: cannot be obeyed: pictures has images"]),
    (FACTORY | {"stage": "kto", "dataset": "chats"}, ["dataset: cannot be obeyed: chats reads as"]),
    (FACTORY | {"dataset_dir": "REMOTE:acme/data"}, ["dataset_info.json of REMOTE:acme/data"]),
    (FACTORY | {"quantization_bit": 4, "finetuning_type": "full"}, ["quantization_bit: "]),
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

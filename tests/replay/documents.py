"""Files of other tools, whole.

Of the sources' files the keys and values are as their repositories have them; only places of
models and data, and prompts, are others.
"""

from typing import Any

from tests.replay import test_compose, test_industrial, test_trainer

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
NO_METHOD = {k: v for k, v in CAPYBARA.items() if k != "use_peft"}
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
    "TRL, all weights": NO_METHOD,
    "TRL, in 4 bits": CAPYBARA | {"load_in_4bit": True, "lora_target_modules": ["q_proj"],
                                  "use_bnb_nested_quant": True},
    "TRL, of the Handbook": HANDBOOK,
}  # fmt: skip
TRAINERS = [name for name in FILES if name.startswith("trainer")]

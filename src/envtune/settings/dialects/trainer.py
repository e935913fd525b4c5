"""The SFT trainer's flags: fms-hf-tuning's own, and the TrainingArguments that they extend.

A TrainingArguments flag that Axolotl has under the same name is not here: it passes by the
snapshot. `tests/unit/settings/test_dialects.py` proves that every flag has a row or passes.
"""

from collections.abc import Mapping
from typing import Any

from envtune.settings import upstream
from envtune.settings.dialects import launching
from envtune.settings.dialects import trainer_values as values
from envtune.settings.dialects.rules import (
    FLAG,
    NUMBER,
    STRATEGY,
    TEXT,
    TEXTS,
    Becomes,
    Defaults,
    Noted,
    Others,
    Refused,
    Table,
)

_RUN_NAMES = ("wandb_name", "mlflow_run_name", "trackio_run_name")
_SAMPLING: Mapping[str, Mapping[str, Any]] = {
    "random": {},
    "group_by_length": {"group_by_length": True},
    "sequential": {"curriculum_sampling": True, "shuffle_merged_datasets": False},
}
_LEVELS: Mapping[str, Mapping[str, Any]] = {
    "passive": {}, "detail": {"SFT_LOG_LEVEL": "DEBUG"}, "debug": {"SFT_LOG_LEVEL": "DEBUG"},
    "info": {"SFT_LOG_LEVEL": "INFO"}, "warning": {"SFT_LOG_LEVEL": "WARNING"},
    "error": {"SFT_LOG_LEVEL": "ERROR"}, "critical": {"SFT_LOG_LEVEL": "ERROR"},
}  # fmt: skip
_PROMPT_TUNING = Noted("only prompt tuning reads it, which peft_method asks for")
_NO_AIM = Refused("Aim is not supported; report_to takes wandb, mlflow and tensorboard")

MODEL: Table = {
    "model_name_or_path": "base_model",
    "model_path": "base_model",
    "tokenizer_name_or_path": "tokenizer_config",
    "use_flash_attn": Becomes(FLAG, values.flash),
    "flash_attn_implementation": "attn_implementation",
    "torch_dtype": Becomes(TEXT, values.dtype),
    "embedding_size_multiple_of": Becomes(
        {"anyOf": [{"type": "integer"}, {"type": "null"}]}, values.padded
    ),
    "quantization_method": Becomes(TEXT, values.quantization),
    "dequantize": "model_quantization_config_kwargs.dequantize",
}

DATA: Table = {
    "training_data_path": "datasets.0.path",
    "validation_data_path": Becomes(
        TEXT, lambda path, others: {"test_datasets": [{"path": path, "split": "train"}]}
    ),
    "dataset_text_field": "datasets.0.field",
    "dataset_conversation_field": "datasets.0.field_messages",
    "data_formatter_template": values.template("datasets.0.input_format"),
    "response_template": values.template("response_template"),
    "instruction_template": values.template("instruction_template"),
    "chat_template": Becomes(TEXT, values.chat_template),
    "add_special_tokens": "special_tokens.additional_special_tokens",
    "data_config_path": Refused("describe the data sets with AXOLOTL_DATASETS"),
    "data_config": Refused("describe the data sets with AXOLOTL_DATASETS"),
    "max_seq_length": "sequence_len",
    "packing": "sample_packing",
    "padding_free": Becomes(
        TEXTS, lambda names, others: {"batch_flattening": True} if values.as_list(names) else {}
    ),
    "group_by_length": "group_by_length",
    "train_sampling_strategy": values.choice(_SAMPLING),
    "length_column_name": Refused("the length is that of the tokens"),
}

LORA: Table = {
    "peft_method": Becomes({"anyOf": [TEXT, {"type": "null"}]}, values.method),
    "r": "lora_r",
    "lora_r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": Becomes(TEXTS, values.targets),
    "target_parameters": "lora_target_parameters",
    "modules_to_save": "lora_modules_to_save",
    "rank_pattern": "lora_rank_pattern",
    "alpha_pattern": "lora_alpha_pattern",
    "layers_to_transform": "peft_layers_to_transform",
    "layers_pattern": "peft_layers_pattern",
    "layer_replication": "peft_layer_replication",
    "trainable_token_indices": "peft_trainable_token_indices",
    "fan_in_fan_out": "lora_fan_in_fan_out",
    "use_rslora": "peft_use_rslora",
    "use_dora": "peft_use_dora",
    "init_lora_weights": "peft_init_lora_weights",
    "bias": Refused("Axolotl trains no biases beside LoRA, and vLLM serves none", ("none",)),
    "task_type": Refused("only CAUSAL_LM is tuned here", ("CAUSAL_LM",)),
    "lora_post_process_for_vllm": "SFT_LORA_POST_PROCESS_FOR_VLLM",
    "invocation_string": values.NO_ALORA,
    "alora_invocation_string": values.NO_ALORA,
    "prompt_tuning_init": _PROMPT_TUNING,
    "prompt_tuning_init_text": _PROMPT_TUNING,
    "num_virtual_tokens": _PROMPT_TUNING,
}

STEPS: Table = {
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "num_train_epochs": values.length("num_epochs", NUMBER),
    "max_steps": values.length("max_steps", {"type": "integer"}),
    "warmup_steps": Becomes({"type": "number", "minimum": 0}, values.warmup),
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
    "warmup_ratio": "warmup_ratio",
    "data_seed": Noted("one seed, `seed`, draws everything"),
    "label_smoothing_factor": Refused("Axolotl trains on hard labels"),
    "average_tokens_across_devices": Noted("each device averages over its own tokens"),
    "full_determinism": Refused("on the CPU a run is bit-identical as it is"),
    "use_liger_kernel": Becomes(FLAG, values.liger),
    "liger_kernel_config": Becomes({"type": "object"}, values.liger_parts),
    "use_cache": Refused("nothing is generated while training"),
    "bf16_full_eval": Refused("evaluation runs in the precision of training"),
    "fp16_full_eval": Refused("evaluation runs in the precision of training"),
    "use_cpu": Becomes(FLAG, lambda on, others: {"SFT_DEVICE": "cpu"} if on else {}),
    "no_cuda": Becomes(FLAG, lambda on, others: {"SFT_DEVICE": "cpu"} if on else {}),
}

EVALUATION: Table = {
    "eval_strategy": Becomes(STRATEGY, values.strategy("eval_strategy")),
    "evaluation_strategy": Becomes(STRATEGY, values.strategy("eval_strategy")),
    "do_train": Noted("a run always trains"),
    "do_eval": Noted("a validation set is evaluated where there is one"),
    "do_predict": Refused("a run predicts nothing"),
    "eval_delay": Refused("evaluation starts with training; eval_steps says how often"),
    "eval_on_start": Noted("Axolotl always evaluates before the first step too"),
    "eval_accumulation_steps": Refused("Axolotl uses gradient_accumulation_steps for it"),
    "eval_do_concat_batches": Refused("Axolotl has no setting for it"),
    "eval_use_gather_object": Refused("Axolotl has no setting for it"),
    "batch_eval_metrics": Refused("Axolotl has no setting for it"),
    "include_for_metrics": Refused("Axolotl has no setting for it"),
    "prediction_loss_only": Noted("evaluation computes the loss alone"),
    "label_names": Refused("the labels are made from the data set's type"),
}

SAVING: Table = {
    "save_model_dir": Noted("the result lies in the run's adapter/ or model/"),
    "save_strategy": Becomes(STRATEGY, values.strategy("save_strategy")),
    "cache_dir": "SFT_CACHE_DIR",
    "overwrite_output_dir": Noted("a run's folder is never overwritten; SFT_RERUN trains again"),
    "save_on_each_node": Refused("every node sees one folder"),
    "enable_jit_checkpoint": Noted("SIGTERM always commits a checkpoint"),
    "ignore_data_skip": Refused("a resumed run goes on with the batch where it stopped"),
    "restore_callback_states_from_checkpoint": Refused("Axolotl has no setting for it"),
    "push_to_hub": Noted("hub_model_id, or SFT_PUSH_TO, is what turns it on"),
    "hub_always_push": Noted("the checked result is pushed, once"),
    "resume_from_checkpoint": Becomes({"anyOf": [TEXT, FLAG]}, values.resume),
    "hub_private_repo": Becomes({"anyOf": [FLAG, {"type": "null"}]}, values.private),
    "hub_token": Refused("a token in a configuration gets published with it; set HF_TOKEN"),
    "jit_mode_eval": Refused("Axolotl has no setting for it", (False,)),
}

LOGGING: Table = {
    "report_to": Becomes(TEXTS, values.report_to),
    "trackers": Becomes(TEXTS, values.trackers),
    "tracker": Becomes(TEXTS, values.trackers),
    "run_name": Becomes(TEXT, lambda name, others: dict.fromkeys(_RUN_NAMES, name)),
    "project": Refused("set WANDB_PROJECT, or trackio_project_name"),
    "mlflow_experiment": "mlflow_experiment_name",
    "trackio_bucket_id": Refused("Axolotl has no setting for it"),
    "trackio_static_space_id": Refused("Axolotl has no setting for it"),
    "experiment": _NO_AIM,
    "aim_repo": _NO_AIM,
    "aim_remote_server_ip": _NO_AIM,
    "aim_remote_server_port": _NO_AIM,
    "aim_url": _NO_AIM,
    "training_logs_filename": Noted("the losses are in the run's metrics.jsonl"),
    "logging_strategy": Noted("every step is logged; logging_steps makes it fewer"),
    "logging_first_step": Noted("every step is logged; logging_steps makes it fewer"),
    "logging_nan_inf_filter": Refused("Axolotl keeps it on; grad_norm shows a NaN"),
    "log_on_each_node": Noted("each node writes a log of its own"),
    "include_num_input_tokens_seen": Noted("tokens without padding are always counted"),
    "log_level": values.choice(_LEVELS),
    "log_level_replica": Noted("SFT_LOG_LEVEL counts for every process"),
    "disable_tqdm": Noted("a log shows plain lines, a terminal a bar"),
    "debug": Refused("Axolotl has no setting for it", ([],)),
    "skip_memory_metrics": Noted("peak memory is always in report.json"),
}

LAUNCH: Table = {
    "accelerate_launch_args": Becomes({"type": "object"}, launching.flags),
    "multiGPU": Becomes({"type": "object"}, launching.flags),
    "local_rank": Refused("the launcher sets it for each process"),
    "parallelism_config": Refused("set context_parallel_size, tensor_parallel_size, dp_shard_size"),
    "ddp_backend": Refused("nccl on GPUs, gloo on the CPU"),
    "ddp_static_graph": Refused("Axolotl has no setting for it"),
    "dataloader_persistent_workers": Refused("Axolotl has no setting for it"),
    "dataloader_multiprocessing_context": Refused("Axolotl has no setting for it"),
    "dataloader_in_order": Refused("batches come in order, or a resumed run would differ"),
}

# What the trainer adds from plug-ins of its own.
PLUGINS: Table = {
    "trainer_controller_config_file": Refused(
        "set early_stopping_patience, or loss_watchdog_threshold with loss_watchdog_patience"
    ),
    "auto_gptq": Refused("set gptq=true with a GPTQ model", ([],)),
    "bitsandbytes": Refused("set adapter=qlora, or load_in_8bit=true"),
    "fused_lora": Refused("the four lora_*_kernel settings are on where they work"),
    "fast_kernels": Refused("set use_liger_kernel=true"),
    "multipack": Refused("set packing=true, which packs to full length"),
    "fast_moe": Refused("set context_parallel_size or experts_implementation"),
    "odm": Refused("Axolotl has no online data mixing"),
    "mcp": Refused("set context_parallel_size"),
    "exp_metadata": Refused("the run's record is run.json"),
    "enable_reduce_loss_sum": Refused("the loss is always averaged over tokens", (False,)),
    "do_dataprocessing_only": Refused("a run trains what it prepares", (False,)),
}

# Arguments that transformers has dropped and that files still hold.
_DROPPED = Noted("transformers has no such argument any more")
DROPPED: Table = {
    "include_tokens_per_second": "include_tokens_per_second",
    "logging_dir": Noted("TensorBoard's events lie in the run's folder"),
    **dict.fromkeys(
        ("half_precision_backend", "fp16_opt_level", "fp16_backend", "dispatch_batches",
         "split_batches", "use_ipex", "use_mps_device", "tpu_num_cores", "past_index",
         "ray_scope", "torchdynamo", "mp_parameters", "_n_gpu", "fsdp_min_num_params",
         "fsdp_transformer_layer_cls_to_wrap",
         "tpu_metrics_debug", "include_inputs_for_metrics"),
        _DROPPED,
    ),
}  # fmt: skip

# What any tool over TrainingArguments takes.
ARGUMENTS: Table = {
    **DROPPED, **STEPS, **EVALUATION, **SAVING, **LOGGING, **LAUNCH,
    **{name: DATA[name] for name in
       ("group_by_length", "train_sampling_strategy", "length_column_name")},
}  # fmt: skip
TABLE: Table = {**MODEL, **DATA, **LORA, **ARGUMENTS, **PLUGINS}

# Names that only a configuration for the trainer has.
MARKS = ("training_data_path", "accelerate_launch_args", "peft_method", "response_template",
         "lora_post_process_for_vllm", "data_config_path", "data_formatter_template",
         "dataset_conversation_field", "multiGPU")  # fmt: skip
# The same table serves those of transformers itself, whatever script reads them.
ARGUMENTS_MARKS = ("model_name_or_path", "per_device_train_batch_size", "num_train_epochs",
                   "max_seq_length", "dataset_text_field", "tokenizer_name_or_path",
                   "target_modules")  # fmt: skip


def arguments_defaults(others: Others) -> Defaults:
    """What TrainingArguments holds where nothing is said and envtune would choose otherwise."""
    usual = upstream.trainer()["flags"]
    length = {} if _on(others, "max_steps") else {"num_train_epochs": usual["num_train_epochs"]}
    warmup = {} if _on(others, "warmup_ratio") else {"warmup_steps": 0}
    return {
        "per_device_train_batch_size": usual["per_device_train_batch_size"],
        "gradient_accumulation_steps": usual["gradient_accumulation_steps"],
        **length,
        "learning_rate": usual["learning_rate"],
        "lr_scheduler_type": usual["lr_scheduler_type"],
        **warmup,
        "peft_method": "none",
    }


def defaults(others: Others) -> Defaults:
    """The trainer's own: all weights train where no method is named."""
    lora = {"r": 8, "lora_alpha": 32, "lora_dropout": 0.05, "target_modules": ["q_proj", "v_proj"]}
    tuned = str(others.get("peft_method")).lower() == "lora"
    return {**arguments_defaults(others), "max_seq_length": 4096, "packing": False,
            **(lora if tuned else {})}  # fmt: skip


def _on(others: Others, name: str) -> bool:
    value = others.get(name)
    return isinstance(value, int | float) and value > 0

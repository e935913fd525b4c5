"""The SFT trainer's flags: fms-hf-tuning's own, and the TrainingArguments that they extend.

A TrainingArguments flag that Axolotl has under the same name is not here: it passes by the
snapshot. `tests/unit/test_dialects.py` proves that every flag has a row or passes.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from envtune.settings.dialects.rules import (
    FLAG,
    NUMBER,
    TEXT,
    TEXTS,
    Becomes,
    Implied,
    Noted,
    Others,
    Outcome,
    Refused,
    Table,
)
from envtune.settings.schema import Node

_TRACKERS = {
    "wandb": "use_wandb", "mlflow": "use_mlflow", "tensorboard": "use_tensorboard",
    "comet_ml": "use_comet", "trackio": "use_trackio",
}  # fmt: skip
_RUN_NAMES = ("wandb_name", "mlflow_run_name", "trackio_run_name")
_DTYPES: Mapping[str, Mapping[str, Any]] = {
    "bfloat16": {"bf16": True}, "float16": {"fp16": True},
    "float32": {"bf16": False, "fp16": False}, "auto": {"bf16": "auto"},
}  # fmt: skip
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
_LIGER = {
    "rope": "liger_rope", "rms_norm": "liger_rms_norm", "layer_norm": "liger_layer_norm",
    "swiglu": "liger_glu_activation", "geglu": "liger_glu_activation",
    "cross_entropy": "liger_cross_entropy",
    "fused_linear_cross_entropy": "liger_fused_linear_cross_entropy",
}  # fmt: skip
# What Liger turns on where liger_kernel_config does not say.
_LIGER_USUAL = {
    "liger_rope": True, "liger_rms_norm": True, "liger_glu_activation": True,
    "liger_fused_linear_cross_entropy": True,
}  # fmt: skip
_NO_PROMPT_TUNING = Refused("prompt tuning is not in Axolotl; peft_method=lora")
_NO_ALORA = Refused("activated LoRA is not in Axolotl, and vLLM refuses it; peft_method=lora")
_NO_AIM = Refused("Aim is not supported; report_to takes wandb, mlflow and tensorboard")
_SAME_SEED = "one seed, `seed`, draws everything"


def _none_of(value: str, names: Iterable[str]) -> Refused:
    return Refused(f"{value} is none of {', '.join(names)}")


def _names(value: list[str] | str | None) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def _trackers(value: Any, others: Others) -> Mapping[str, Any] | Refused:
    """TrainingArguments' report_to and the trainer's own `trackers`, which always writes a file."""
    names = [n for n in map(str.lower, _names(value)) if n not in ("none", "file_logger")]
    for name in names:
        if name not in _TRACKERS:
            return _none_of(name, _TRACKERS)
    return {_TRACKERS[name]: True for name in names}


def _report_to(value: Any, others: Others) -> Mapping[str, Any] | Refused:
    """`none` keeps Weights & Biases off although its key is set."""
    if set(_names(value)) <= {"none"} and not {"trackers", "tracker"} & others.keys():
        return {"use_wandb": False}
    return _trackers(value, others)


def _targets(value: Any, others: Others) -> Mapping[str, Any]:
    names = _names(value)
    if "all-linear" in names:  # as the trainer does, whatever stands beside it
        return {"lora_target_linear": True}
    return {"lora_target_modules": names} if names else {}


def _method(value: str | None, others: Others) -> Mapping[str, Any] | Refused:
    name = (value or "none").lower()
    if name not in ("lora", "none"):
        return _NO_ALORA if name == "alora" else Refused(f"{name} is not in Axolotl; lora or none")
    return {"adapter": "lora" if name == "lora" else None}


def _choice(table: Mapping[str, Mapping[str, Any]]) -> Becomes:
    """A word of a closed list, and the keys that it stands for."""

    def make(value: str, others: Others) -> Outcome:
        made = table.get(value.lower())
        return _none_of(value, table) if made is None else made

    return Becomes(TEXT, make)


def _length(key: str, node: Node) -> Becomes:
    """-1 leaves the length of the training to the other of max_steps and num_train_epochs."""
    return Becomes(node, lambda value, others: {key: value} if value > 0 else {})


def _warmup(value: float, others: Others) -> Mapping[str, Any]:
    """TrainingArguments reads a number below one as a share of the steps; 0 leaves the ratio."""
    if 0 < value < 1:
        return {"warmup_ratio": value}
    if value == 0 and others.get("warmup_ratio"):
        return {}
    return {"warmup_steps": int(value)}


def _flash(on: bool, others: Others) -> Mapping[str, Any]:
    """flash_attn_implementation says which, where both are given."""
    named = on and others.get("flash_attn_implementation")
    return {} if named else {"attn_implementation": "flash_attention_2" if on else "sdpa"}


def _dtype(value: str, others: Others) -> Outcome:
    """The format of the weights; Axolotl has one format, and that of the arithmetic counts."""
    made = _DTYPES.get(value.removeprefix("torch."))
    if made is None:
        return _none_of(value, _DTYPES)
    if said := next((name for name in ("bf16", "fp16") if others.get(name) is True), None):
        return Noted(f"{said} is set too and counts")
    return {name: item for name, item in made.items() if others.get(name) is not item}


def _unescaped(text: str) -> str:
    r"""`\n` written out is a line break in every template of the trainer's."""
    escapes = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\"}
    return re.sub(r"\\([ntr\\])", lambda found: escapes[found[1]], text)


def _template(key: str) -> Becomes:
    return Becomes(TEXT, lambda text, others: {key: _unescaped(text)})


def _chat_template(text: str, others: Others) -> Mapping[str, Any]:
    """Jinja text, or the name of one of Axolotl's templates."""
    if "{" not in text:
        return {"chat_template": text}
    return {"chat_template": "jinja", "chat_template_jinja": _unescaped(text)}


def _quantization(value: str, others: Others) -> Outcome:
    if value == "mxfp4":
        return {"model_quantization_config": "Mxfp4Config"}
    return Refused(f"{value} is not mxfp4; load_in_4bit with adapter=qlora quantizes any model")


def _liger(value: bool, others: Others) -> Mapping[str, Any]:
    """Liger's kernels, where liger_kernel_config does not say which."""
    said = others.get("liger_kernel_config") is not None
    return _LIGER_USUAL if value and not said else {}


def _liger_parts(value: Mapping[str, Any], others: Others) -> Outcome:
    if unknown := next((name for name in value if name not in _LIGER), None):
        return _none_of(unknown, _LIGER)
    if others.get("use_liger_kernel") is not True:
        return Noted("use_liger_kernel is not on")
    return {**_LIGER_USUAL, **{_LIGER[name]: on for name, on in value.items()}}


def _resume(value: str | bool, others: Others) -> Outcome:
    """An unfinished run always goes on, which is what True asks for."""
    word = str(value).lower()
    if word == "false":
        return Refused("an unfinished run always resumes; SFT_RERUN=true trains anew")
    return {} if word in ("true", "latest") else {"resume_from_checkpoint": value}


def _private(on: bool | None, others: Others) -> Mapping[str, Any]:
    """Null leaves it to the Hub there, and to the default here."""
    return {} if on is None else {"SFT_PUSH_PRIVATE": on}


def _padded(value: int | None, others: Others) -> Mapping[str, Any] | Refused:
    if value in (None, 0, 1):
        return {}
    if value == 32:  # the one size that Axolotl pads to
        return {"resize_token_embeddings_to_32x": True}
    return Refused(f"{value} is not supported: Axolotl pads the embeddings to 32 or not at all")


MODEL: Table = {
    "model_name_or_path": "base_model",
    "model_path": "base_model",
    "tokenizer_name_or_path": "tokenizer_config",
    "use_flash_attn": Becomes(FLAG, _flash),
    "flash_attn_implementation": "attn_implementation",
    "torch_dtype": Becomes(TEXT, _dtype),
    "embedding_size_multiple_of": Becomes(
        {"anyOf": [{"type": "integer"}, {"type": "null"}]}, _padded
    ),
    "quantization_method": Becomes(TEXT, _quantization),
    "dequantize": "model_quantization_config_kwargs.dequantize",
}

DATA: Table = {
    "training_data_path": "datasets.0.path",
    "validation_data_path": Becomes(
        TEXT, lambda path, others: {"test_datasets": [{"path": path, "split": "train"}]}
    ),
    "dataset_text_field": "datasets.0.field",
    "dataset_conversation_field": "datasets.0.field_messages",
    "data_formatter_template": _template("datasets.0.input_format"),
    "response_template": _template("response_template"),
    "instruction_template": _template("instruction_template"),
    "chat_template": Becomes(TEXT, _chat_template),
    "add_special_tokens": "special_tokens.additional_special_tokens",
    "data_config_path": Refused("describe the data sets with AXOLOTL_DATASETS"),
    "data_config": Refused("describe the data sets with AXOLOTL_DATASETS"),
    "max_seq_length": "sequence_len",
    "packing": "sample_packing",
    "padding_free": Becomes(
        TEXTS, lambda names, others: {"batch_flattening": True} if _names(names) else {}
    ),
    "group_by_length": "group_by_length",
    "train_sampling_strategy": _choice(_SAMPLING),
    "length_column_name": Refused("the length is that of the tokens"),
}

LORA: Table = {
    "peft_method": Becomes({"anyOf": [TEXT, {"type": "null"}]}, _method),
    "r": "lora_r",
    "lora_r": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "target_modules": Becomes(TEXTS, _targets),
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
    "invocation_string": _NO_ALORA,
    "alora_invocation_string": _NO_ALORA,
    "prompt_tuning_init": _NO_PROMPT_TUNING,
    "prompt_tuning_init_text": _NO_PROMPT_TUNING,
    "num_virtual_tokens": _NO_PROMPT_TUNING,
}

STEPS: Table = {
    "per_device_train_batch_size": "micro_batch_size",
    "per_device_eval_batch_size": "eval_batch_size",
    "num_train_epochs": _length("num_epochs", NUMBER),
    "max_steps": _length("max_steps", {"type": "integer"}),
    "warmup_steps": Becomes({"type": "number", "minimum": 0}, _warmup),
    "lr_scheduler_type": "lr_scheduler",
    "optim": "optimizer",
    "warmup_ratio": "warmup_ratio",
    "data_seed": Noted(_SAME_SEED),
    "label_smoothing_factor": Refused("Axolotl trains on hard labels"),
    "average_tokens_across_devices": Noted("each device averages over its own tokens"),
    "full_determinism": Refused("on the CPU a run is bit-identical as it is"),
    "use_liger_kernel": Becomes(FLAG, _liger),
    "liger_kernel_config": Becomes({"type": "object"}, _liger_parts),
    "use_cache": Refused("nothing is generated while training"),
    "bf16_full_eval": Refused("evaluation runs in the precision of training"),
    "fp16_full_eval": Refused("evaluation runs in the precision of training"),
    "use_cpu": Becomes(FLAG, lambda on, others: {"SFT_DEVICE": "cpu"} if on else {}),
    "no_cuda": Becomes(FLAG, lambda on, others: {"SFT_DEVICE": "cpu"} if on else {}),
}

EVALUATION: Table = {
    "evaluation_strategy": "eval_strategy",
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
    "save_model_dir": Refused("the result lies in the run's adapter/ or model/; set output_dir"),
    "cache_dir": "SFT_CACHE_DIR",
    "overwrite_output_dir": Noted("a run's folder is never overwritten; SFT_RERUN trains again"),
    "save_on_each_node": Refused("every node sees one folder"),
    "enable_jit_checkpoint": Noted("SIGTERM always commits a checkpoint"),
    "ignore_data_skip": Refused("a resumed run goes on with the batch where it stopped"),
    "restore_callback_states_from_checkpoint": Refused("Axolotl has no setting for it"),
    "push_to_hub": Noted("hub_model_id, or SFT_PUSH_TO, is what turns it on"),
    "hub_always_push": Noted("the checked result is pushed, once"),
    "resume_from_checkpoint": Becomes({"anyOf": [TEXT, FLAG]}, _resume),
    "hub_private_repo": Becomes({"anyOf": [FLAG, {"type": "null"}]}, _private),
    "hub_token": Refused("a token in a configuration gets published with it; set HF_TOKEN"),
    "jit_mode_eval": Refused("Axolotl has no setting for it", (False,)),
}

LOGGING: Table = {
    "report_to": Becomes(TEXTS, _report_to),
    "trackers": Becomes(TEXTS, _trackers),
    "tracker": Becomes(TEXTS, _trackers),
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
    "training_logs_filename": Refused("the losses are in the run's metrics.jsonl"),
    "logging_strategy": Noted("every step is logged; logging_steps makes it fewer"),
    "logging_first_step": Noted("every step is logged; logging_steps makes it fewer"),
    "logging_nan_inf_filter": Refused("Axolotl keeps it on; grad_norm shows a NaN"),
    "log_on_each_node": Noted("each node writes a log of its own"),
    "include_num_input_tokens_seen": Noted("tokens without padding are always counted"),
    "log_level": _choice(_LEVELS),
    "log_level_replica": Noted("SFT_LOG_LEVEL counts for every process"),
    "disable_tqdm": Noted("a log shows plain lines, a terminal a bar"),
    "debug": Refused("Axolotl has no setting for it", ([],)),
    "skip_memory_metrics": Noted("peak memory is always in report.json"),
}

LAUNCH: Table = {
    "accelerate_launch_args": "SFT_ACCELERATE_LAUNCH_ARGS",
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
    "auto_gptq": Refused("set gptq=true with a GPTQ model"),
    "bitsandbytes": Refused("set adapter=qlora, or load_in_8bit=true"),
    "fused_lora": Refused("the four lora_*_kernel settings are on where they work"),
    "fast_kernels": Refused("set use_liger_kernel=true"),
    "multipack": Refused("set packing=true, which packs to full length"),
    "fast_moe": Refused("set context_parallel_size or experts_implementation"),
    "odm": Refused("Axolotl has no online data mixing"),
    "mcp": Refused("set context_parallel_size"),
    "exp_metadata": Refused("the run's record is run.json"),
    "enable_reduce_loss_sum": Refused("the loss is always averaged over tokens"),
    "do_dataprocessing_only": Refused("a run trains"),
}

TABLE: Table = {
    **MODEL, **DATA, **LORA, **STEPS, **EVALUATION, **SAVING, **LOGGING, **LAUNCH, **PLUGINS,
}  # fmt: skip

# Names that only a configuration for the trainer has.
MARKS = ("model_name_or_path", "training_data_path", "accelerate_launch_args", "peft_method",
         "per_device_train_batch_size", "num_train_epochs", "response_template",
         "dataset_text_field", "lora_post_process_for_vllm", "tokenizer_name_or_path",
         "data_config_path", "max_seq_length", "target_modules")  # fmt: skip


def implied(others: Others) -> Implied:
    """The trainer tunes all weights where no method is named; envtune would train an adapter."""
    if {"peft_method", "adapter"} & others.keys():
        return {}
    return {"no peft_method, which trains all weights": ("adapter", None)}

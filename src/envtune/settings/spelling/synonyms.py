"""What other tools call a setting of ours: looked up before spelling is compared."""

from collections.abc import Mapping

_MEANT: Mapping[str, str] = {
    "base_model": "model model_name model_id model_path model_name_or_path hf_model base "
    "pretrained_model pretrained_model_name_or_path basemodel checkpoint_path",
    "tokenizer_config": "tokenizer tokenizer_name tokenizer_path tokenizer_name_or_path",
    "datasets": "dataset data data_path dataset_path dataset_name train_data train_file data_file "
    "train_dataset training_data training_file training_data_path train_path dataset_id",
    "test_datasets": "eval_dataset eval_datasets eval_data eval_file validation_file val_data "
    "validation_data validation_dataset test_dataset test_data val_dataset val_datasets",
    "val_set_size": "test_size val_size val_split eval_split validation_split eval_size "
    "validation_size split_ratio",
    "lora_r": "lora_rank rank r lora_dim",
    "lora_alpha": "alpha lora_scaling",
    "lora_dropout": "dropout",
    "lora_target_modules": "target_modules lora_target lora_targets targets lora_modules",
    "lora_modules_to_save": "modules_to_save additional_target",
    "learning_rate": "lr learningrate max_lr init_lr",
    "lr_scheduler": "scheduler lr_scheduler_type lr_schedule",
    "sequence_len": "cutoff_len max_seq_length max_seq_len seq_len seq_length sequence_length "
    "max_length max_len context_length context_len block_size model_max_length max_tokens",
    "num_epochs": "epochs epoch num_train_epochs n_epochs train_epochs max_epochs num_epoch",
    "max_steps": "steps train_steps num_steps max_train_steps total_steps",
    "micro_batch_size": "train_batch_size per_device_train_batch_size per_device_batch_size "
    "device_batch_size per_gpu_batch_size batch",
    "eval_batch_size": "per_device_eval_batch_size",
    "gradient_accumulation_steps": "grad_accum grad_acc accumulation_steps accumulate_grad_batches "
    "gradient_accumulation grad_accumulation_steps grad_accum_steps",
    "gradient_checkpointing": "grad_checkpointing activation_checkpointing gradient_ckpt",
    "optimizer": "optim",
    "warmup_steps": "warmup num_warmup_steps",
    "weight_decay": "wd decay",
    "max_grad_norm": "grad_clip clip_grad_norm gradient_clipping gradient_clip_val",
    "load_in_4bit": "4bit use_4bit quantization_bit load_4bit",
    "load_in_8bit": "8bit use_8bit load_8bit",
    "bf16": "dtype precision mixed_precision",
    "fp16": "half",
    "sample_packing": "packing pack pack_sequences",
    "attn_implementation": "attention attn flash_attn use_flash_attn attn_impl",
    "adapter": "peft_method finetuning_type method use_lora peft_type use_peft",
    "chat_template": "template prompt_template",
    "save_steps": "save_every save_interval checkpoint_steps checkpointing_steps",
    "eval_steps": "eval_every eval_interval",
    "logging_steps": "log_steps log_every log_interval log_every_n_steps",
    "save_total_limit": "keep_checkpoints max_checkpoints",
    "output_dir": "output out_dir output_path save_dir",
    "resume_from_checkpoint": "resume resume_from resume_from_path",
    "seed": "random_seed",
    "neftune_noise_alpha": "neftune neftune_alpha",
    "early_stopping_patience": "early_stopping patience",
    "deepspeed": "deepspeed_config ds_config",
    "peft_use_dora": "dora use_dora",
    "peft_use_rslora": "rslora use_rslora",
    "trust_remote_code": "remote_code",
    "use_wandb": "wandb",
    "wandb_project": "project project_name",
    "SFT_QUANTISE": "quantize quantise quantisation quant awq",
    "SFT_MERGE": "merge merge_adapter",
    "SFT_DEVICE": "accelerator hardware",
    "SFT_SAMPLE_SIZE": "max_samples limit sample_size num_samples",
    "SFT_LANGUAGES": "filter_langs langs languages filter_languages",
    "SFT_DATA_WEIGHTS": "weights dataset_weights data_probs probabilities interleave_probs",
    "SFT_INTERLEAVE_STRATEGY": "stopping_strategy mix_strategy",
    "dataset_exact_deduplication": "dedup deduplicate deduplication exact_dedup",
    "SFT_EVALUATE": "evaluate eval do_eval",
    "SFT_SERVE_PORT": "port",
    "SFT_SERVE_MAX_MODEL_LEN": "max_model_len",
    "SFT_OUTPUTS_DIR": "outputs",
    "SFT_LOGS_DIR": "logs log_dir logging_dir",
    "NPROC": "num_gpus gpus n_gpus num_processes nproc_per_node",
    "NNODES": "num_nodes nodes num_machines",
}
KEYS: Mapping[str, str] = {name: key for key, names in _MEANT.items() for name in names.split()}

_VERBS: Mapping[str, str] = {
    "run": "train start fit finetune fine-tune tune sft launch go execute resume retrain",
    "check": "verify lint test dry-run dryrun preflight",
    "plan": "estimate memory vram fits",
    "export": "merge merge-lora save",
    "publish": "upload push push-to-hub deploy release",
    "quantise": "quantize quant compress awq gptq",
    "evaluate": "eval benchmark bench lm-eval score",
    "serve": "infer inference generate host vllm predict api server",
    "chat": "talk ask converse conversation repl",
    "configure": "config render init setup",
    "prepare": "preprocess prep filter split",
    "convert": "to-jsonl csv2jsonl tojsonl",
    "explain": "show why describe doc docs info",
    "status": "state progress ps",
    "health": "ping healthcheck probe",
}
VERBS: Mapping[str, str] = {name: verb for verb, names in _VERBS.items() for name in names.split()}


def meant(name: str) -> str | None:
    """The key or the variable that other tools call `name`, which has no prefix."""
    return KEYS.get(name.lower())

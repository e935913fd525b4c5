"""LLaMA-Factory's training files: its own arguments over TrainingArguments.

What it does beside training (inference, merging, Megatron) is one refusal a file; the names
that only serve it say nothing more.
"""

from envtune.settings.dialects import llamafactory_data as data
from envtune.settings.dialects import llamafactory_values as values
from envtune.settings.dialects import trainer
from envtune.settings.dialects.rules import (
    ANY,
    COUNT,
    FLAG,
    NUMBER,
    TEXT,
    TEXTS,
    Becomes,
    Defaults,
    Noted,
    Others,
    Refused,
    Rule,
    Table,
)

_SILENT = Noted()
_NOTHING = Refused("Axolotl has no setting for it", (False, 0, "", []))
_TOKEN = Refused("a token in a configuration gets published with it; set HF_TOKEN")
_ADDED = "special_tokens.additional_special_tokens"
_PIXELS = Noted("only rows with images or videos read it")
_PREPARED = Noted("rows are prepared once, in the run's data/")


def _alike(rule: Rule, *names: str) -> Table:
    return dict.fromkeys(names, rule)


MODEL: Table = {
    "model_name_or_path": "base_model",
    "adapter_name_or_path": "lora_model_dir",
    "adapter_folder": _SILENT,
    "cache_dir": "SFT_CACHE_DIR",
    "use_fast_tokenizer": "tokenizer_use_fast",
    "resize_vocab": Noted("the embeddings grow with the tokens that are added"),
    "add_tokens": Becomes(TEXTS, values.several("tokens")),
    "add_special_tokens": Becomes(TEXTS, values.several(_ADDED)),
    "new_special_tokens_config": Refused("name the tokens in add_special_tokens"),
    "init_special_tokens": Noted("new rows of the embeddings begin with the mean of the old ones"),
    "model_revision": Becomes(TEXT, values.revision),
    "flash_attn": Becomes(TEXTS, values.attention),
    "enable_liger_kernel": Becomes(FLAG, values.liger),
    "disable_gradient_checkpointing": Becomes(
        FLAG, lambda off, others: {"gradient_checkpointing": not off}
    ),
    "use_reentrant_gc": "gradient_checkpointing_kwargs.use_reentrant",
    "train_from_scratch": "reinit_weights",
    "rope_scaling": Refused('set AXOLOTL_MODEL_CONFIG={"rope_scaling": {...}}'),
    **_alike(_TOKEN, "hf_hub_token", "ms_hub_token", "om_hub_token"),
    **_alike(
        Noted("envtune has its own kernels and ways of loading"),
        "use_unsloth", "use_unsloth_gc", "use_v1_kernels", "low_cpu_mem_usage", "use_kv_cache",
        "device_map", "compute_dtype", "offload_folder", "print_param_status",
    ),
    **_alike(
        _NOTHING,
        "shift_attn", "mixture_of_depths", "upcast_layernorm", "upcast_lmhead_output",
        "split_special_tokens", "moe_aux_loss_coef", "block_diag_attn",
    ),
    "quantization_method": Refused(
        "bnb quantizes here, in 4 or 8 bits", ("bnb", "bitsandbytes", "BNB")
    ),
    "quantization_bit": Becomes(COUNT, values.bits),
    "quantization_type": "bnb_config_kwargs.bnb_4bit_quant_type",
    "double_quantization": "bnb_config_kwargs.bnb_4bit_use_double_quant",
    "quantization_device_map": _SILENT,
    **_alike(
        _PIXELS,
        "image_max_pixels", "image_min_pixels", "image_do_pan_and_scan", "crop_to_patches",
        "video_max_pixels", "video_min_pixels", "video_fps", "video_maxlen",
        "use_audio_in_video", "audio_sampling_rate", "media_dir",
        "freeze_vision_tower", "freeze_multi_modal_projector", "freeze_language_model",
    ),
}  # fmt: skip

METHOD: Table = {
    "stage": Becomes(TEXT, values.stage),
    "finetuning_type": Becomes(TEXT, values.method),
    "lora_rank": "lora_r",
    "lora_alpha": "lora_alpha",
    "lora_dropout": "lora_dropout",
    "lora_target": Becomes(TEXTS, values.targets),
    "additional_target": Becomes(TEXTS, values.several("lora_modules_to_save")),
    "use_rslora": "peft_use_rslora",
    "use_dora": "peft_use_dora",
    "pissa_init": Becomes(FLAG, values.pissa),
    **_alike(_SILENT, "pissa_iter", "pissa_convert"),
    "create_new_adapter": Refused("merge the first adapter, then train on the result", (False,)),
    "pref_beta": Becomes(NUMBER, values.preference("rl_beta")),
    "pref_loss": Becomes(TEXT, values.loss),
    "kto_chosen_weight": Becomes(NUMBER, values.preference("kto_desirable_weight")),
    "kto_rejected_weight": Becomes(NUMBER, values.preference("kto_undesirable_weight")),
    "simpo_gamma": Becomes(NUMBER, values.preference("simpo_gamma")),
    **_alike(_NOTHING, "pref_ftx", "pref_bco_weight", "ld_alpha", "use_llama_pro",
             "use_dft_loss", "use_asft_loss", "use_hyper_parallel", "use_mca", "use_kt"),
    **_alike(Refused("the reference is the model as it was before"), "ref_model",
             "ref_model_adapters", "ref_model_quantization_bit"),
    "pure_bf16": Becomes(FLAG, lambda on, others: {"bf16": True} if on else {}),
    "use_muon": Becomes(FLAG, lambda on, others: {"optimizer": "muon"} if on else {}),
    "use_galore": Refused("set optim: galore_adamw with optim_target_modules", (False,)),
    "use_apollo": Refused("set optim: apollo_adamw with optim_target_modules", (False,)),
    "use_badam": Refused("set lisa_step_interval, or train an adapter", (False,)),
    "use_adam_mini": Refused("set optim, e.g. adamw_torch_8bit", (False,)),
    "use_eaft_loss": "use_eaft",
    "fp8_backend": Noted("TorchAO computes in fp8"),
    "compute_accuracy": Noted("evaluation computes the loss alone"),
    "disable_shuffling": Becomes(
        FLAG, lambda on, others: {"shuffle_merged_datasets": False} if on else {}
    ),
    "early_stopping_steps": "early_stopping_patience",
    "plot_loss": Noted("the losses are in metrics.jsonl and report.json"),
    "include_effective_tokens_per_second": Noted("tokens a second are in report.json"),
}  # fmt: skip

DATA: Table = {
    "dataset": Becomes(TEXTS, data.sets("datasets")),
    "eval_dataset": Becomes(TEXTS, data.sets("test_datasets")),
    "dataset_dir": _SILENT,
    "template": Becomes(TEXT, values.template),
    "cutoff_len": "sequence_len",
    "train_on_prompt": "train_on_inputs",
    "preprocessing_num_workers": "dataset_num_proc",
    "max_samples": "SFT_SAMPLE_SIZE",
    "val_size": "val_set_size",
    "packing": "sample_packing",
    "neat_packing": Becomes(FLAG, lambda on, others: {"sample_packing": True} if on else {}),
    "default_system": "default_system_message",
    "mix_strategy": Becomes(TEXT, data.mixed),
    "interleave_probs": _SILENT,
    "ignore_pad_token_for_loss": Refused("padding is in no label", (True,)),
    **_alike(_PREPARED, "overwrite_cache", "tokenized_path", "preprocessing_batch_size",
             "data_shared_file_system", "buffer_size"),
    **_alike(Noted("the chat template decides"), "tool_format", "enable_thinking",
             "preserve_thinking"),
    **_alike(_NOTHING, "mask_history", "streaming", "eval_on_each_dataset",
             "eval_num_beams"),
}  # fmt: skip

# Its other commands. The first line of each group is the refusal of a whole file.
ELSEWHERE: Table = {
    "infer_backend": Refused("`envtune serve` serves a trained run"),
    "export_dir": Becomes(TEXT, values.export),
    "export_quantization_bit": Refused("SFT_QUANTISE=w4a16, or `envtune quantise` of a run"),
    "predict_with_generate": Refused("SFT_EVALUATE=true answers prompts", (False,)),
    "tensor_model_parallel_size": Refused(
        "Axolotl has no Megatron; set AXOLOTL_TENSOR_PARALLEL_SIZE and FSDP"
    ),
    "ray_num_workers": Refused("envtune launches the nodes itself: docs/launch.md"),
    **_alike(
        _SILENT,
        "infer_dtype", "export_size", "export_device", "export_quantization_dataset",
        "export_quantization_nsamples", "export_quantization_maxlen", "export_legacy_format",
        "export_hub_model_id", "vllm_maxlen", "vllm_gpu_util", "vllm_enforce_eager",
        "vllm_max_lora_rank", "vllm_config", "sglang_maxlen", "sglang_mem_fraction",
        "sglang_tp_size", "sglang_config", "sglang_lora_backend",
        "max_new_tokens", "max_length", "top_p", "top_k", "temperature", "do_sample", "num_beams",
        "repetition_penalty", "length_penalty", "skip_special_tokens",
        "pipeline_model_parallel_size", "expert_model_parallel_size", "sequence_parallel",
        "bias_activation_fusion", "apply_rope_fusion", "use_distributed_optimizer",
        "overlap_param_gather", "overlap_grad_reduce", "recompute_granularity",
        "moe_grouped_gemm", "moe_token_dispatcher_type",
        "ray_init_kwargs", "ray_run_name", "ray_storage_path", "resources_per_worker",
        "placement_strategy", "master_addr", "master_port",
        "kt_weight_path", "kt_expert_checkpoint_path", "kt_use_lora_experts",
        "kt_lora_expert_num", "kt_lora_expert_intermediate_size",
        "asft_alpha", "hyper_parallel_args", "loraplus_lr_embedding",
        "oft_rank", "oft_block_size", "oft_target", "module_dropout",
        "freeze_trainable_layers", "freeze_trainable_modules", "freeze_extra_modules",
        "galore_target", "galore_rank", "galore_update_interval", "galore_scale",
        "galore_proj_type", "galore_layerwise", "apollo_target", "apollo_rank",
        "apollo_update_interval", "apollo_scale", "apollo_proj", "apollo_proj_type",
        "apollo_scale_type", "apollo_layerwise", "apollo_scale_front",
        "badam_mode", "badam_start_block", "badam_switch_mode", "badam_switch_interval",
        "badam_update_ratio", "badam_mask_mode", "badam_verbose",
        "ppo_buffer_size", "ppo_epochs", "ppo_score_norm", "ppo_target", "ppo_whiten_rewards",
        "reward_model", "reward_model_adapters", "reward_model_quantization_bit",
        "reward_model_type",
    ),
}  # fmt: skip

TABLE: Table = {
    **trainer.ARGUMENTS,
    "deepspeed": Becomes(ANY, values.deepspeed),
    **MODEL, **METHOD, **DATA, **ELSEWHERE,
}  # fmt: skip

MARKS = ("finetuning_type", "lora_rank", "lora_target", "dataset_dir", "infer_backend",
         "export_dir", "adapter_name_or_path", "pref_loss", "neat_packing", "quantization_bit",
         "stage model_name_or_path", "cutoff_len model_name_or_path",
         "template model_name_or_path", "dataset model_name_or_path")  # fmt: skip


def defaults(others: Others) -> Defaults:
    """Its own, over those of TrainingArguments: an adapter on every linear layer."""
    if "dataset" not in others and {"infer_backend", "export_dir"} & others.keys():
        return {}
    usual = {n: v for n, v in trainer.arguments_defaults(others).items() if n != "peft_method"}
    rank = others.get("lora_rank", 8)
    lora = {"lora_rank": 8, "lora_alpha": rank * 2 if isinstance(rank, int) else 16,
            "lora_dropout": 0.0, "lora_target": "all"}  # fmt: skip
    adapter = others.get("finetuning_type", "lora") == "lora"
    stage = others.get("stage", "sft")
    return {
        **usual,
        "finetuning_type": "lora",
        **(lora if adapter else {}),
        **({"pref_beta": 0.1} if stage in ("dpo", "kto") else {}),
        **({"pref_loss": "sigmoid"} if stage == "dpo" else {}),
        "cutoff_len": 2048,
        "packing": stage == "pt",
    }

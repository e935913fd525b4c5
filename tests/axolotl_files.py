"""Sixty configurations in Axolotl's own words, of the kinds and with the habits of those that
people publish: every method, sharding in old and new words, keys left empty, keys of the past.

A fragment is what one habit or method adds; a configuration is some of them together.
"""

from typing import Any

Keys = dict[str, Any]

MODEL: Keys = {"base_model": "acme/Tiny-Llama-1B", "learning_rate": 0.0002, "sequence_len": 1024}
STEPS: Keys = {
    "micro_batch_size": 2, "gradient_accumulation_steps": 4, "num_epochs": 1,
    "optimizer": "adamw_torch_fused", "lr_scheduler": "cosine", "bf16": "auto",
}  # fmt: skip
# What nearly every published file carries along.
HABITS: Keys = {
    "dataset_prepared_path": "last_run_prepared", "val_set_size": 0.05, "output_dir": "./outputs/out",
    "wandb_project": None, "wandb_entity": None, "wandb_watch": None, "wandb_name": None,
    "wandb_log_model": None, "resume_from_checkpoint": None, "logging_steps": 1, "tf32": False,
    "evals_per_epoch": 4, "saves_per_epoch": 1, "weight_decay": 0.0, "special_tokens": None,
    "gradient_checkpointing": True, "warmup_ratio": 0.1, "attn_implementation": "flash_attention_2",
}  # fmt: skip
OLD_HABITS: Keys = HABITS | {
    "dataset_prepared_path": None, "val_set_size": 0, "debug": None, "deepspeed": None,
    "fsdp": None, "fsdp_config": None, "early_stopping_patience": None, "local_rank": None,
    "group_by_length": False, "strict": False, "train_on_inputs": False, "eval_table_size": None,
    "load_in_8bit": False, "load_in_4bit": False, "tf32": False, "logging_steps": 1.0,
    "save_total_limit": 1, "attn_implementation": None, "flash_attention": True,
}  # fmt: skip
ALPACA: Keys = {"datasets": [{"path": "acme/alpaca", "type": "alpaca"}]}
CHATS: Keys = {
    "chat_template": "chatml",
    "datasets": [
        {
            "path": "acme/chats", "type": "chat_template", "split": "train[:20%]",
            "field_messages": "conversations", "roles_to_train": ["assistant"],
            "message_property_mappings": {"role": "from", "content": "value"},
        }
    ],
}  # fmt: skip
TWO: Keys = {
    "datasets": [
        {"path": "acme/one", "type": "completion", "field": "text", "name": "en"},
        {
            "path": "acme/two",
            "type": {"field_instruction": "q", "field_output": "a", "format": "{instruction}"},
        },
    ]
}
LORA: Keys = {
    "adapter": "lora", "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05, "lora_target_linear": True,
    "lora_model_dir": None,
}  # fmt: skip
TARGETS: Keys = LORA | {
    "lora_target_linear": None, "lora_fan_in_fan_out": None, "lora_modules_to_save": ["embed_tokens", "lm_head"],
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"], "peft_use_rslora": True,
}  # fmt: skip
QLORA: Keys = LORA | {"adapter": "qlora", "load_in_4bit": True, "optimizer": "paged_adamw_32bit"}
FULL: Keys = {"adapter": None, "lora_r": None, "lora_alpha": None, "learning_rate": 2e-5}
EIGHT: Keys = {"optimizer": "adamw_bnb_8bit"}
PACKED: Keys = {"sample_packing": True, "eval_sample_packing": False, "pad_to_sequence_len": True}
LIGER: Keys = {
    "plugins": ["axolotl.integrations.liger.LigerPlugin"], "liger_rope": True, "liger_rms_norm": True,
    "liger_glu_activation": True, "liger_fused_linear_cross_entropy": True,
}  # fmt: skip
CCE: Keys = {"plugins": ["axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin"]}
FSDP2: Keys = {
    "fsdp_version": 2,
    "fsdp_config": {
        "offload_params": False, "auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "reshard_after_forward": True,
        "transformer_layer_cls_to_wrap": "LlamaDecoderLayer", "state_dict_type": "FULL_STATE_DICT",
    },
}  # fmt: skip
FSDP1: Keys = {
    "fsdp": ["full_shard", "auto_wrap"],
    "fsdp_config": {
        "fsdp_limit_all_gathers": True, "fsdp_sync_module_states": True, "fsdp_offload_params": True,
        "fsdp_use_orig_params": False, "fsdp_cpu_ram_efficient_loading": True,
        "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_state_dict_type": "FULL_STATE_DICT",
        "fsdp_transformer_layer_cls_to_wrap": "LlamaDecoderLayer", "fsdp_sharding_strategy": "FULL_SHARD",
    },
}  # fmt: skip
ZERO: Keys = {"deepspeed": "zero.json"}
DPO: Keys = {
    "rl": "dpo", "rl_beta": 0.1,
    "datasets": [{"path": "acme/pairs", "split": "train", "type": "chat_template.default",
                  "field_messages": "chat", "field_chosen": "yes", "field_rejected": "no"}],
}  # fmt: skip
TURNS: Keys = {
    "rl": "dpo", "chat_template": "llama3",
    "datasets": [{"path": "acme/pairs", "type": "chat_template.default", "split": "train",
                  "field_messages": "talk", "field_chosen": "yes", "field_rejected": "no",
                  "message_property_mappings": {"role": "who", "content": "what"},
                  "roles": {"user": ["user"], "assistant": ["assistant"]}}],
}  # fmt: skip
PAIRS: Keys = {
    "rl": "dpo",
    "datasets": [{"path": "acme/pairs", "split": "train", "type": "chatml.intel"}],
}
OWN_PAIRS: Keys = {
    "rl": "ipo",
    "datasets": [{"path": "acme/pairs", "split": "train",
                  "type": {"field_prompt": "q", "field_chosen": "good", "field_rejected": "bad",
                           "prompt_format": "{prompt}", "chosen_format": "{chosen}",
                           "rejected_format": "{rejected}"}}],
}  # fmt: skip
ORPO: Keys = {"rl": "orpo", "orpo_alpha": 0.1, "remove_unused_columns": False, "chat_template": "chatml",
              "datasets": [{"path": "acme/pairs", "type": "chat_template.argilla"}]}  # fmt: skip
KTO: Keys = {"rl": "kto", "rl_beta": 0.5, "kto_desirable_weight": 0.2, "remove_unused_columns": False,
             "datasets": [{"path": "acme/marks", "split": "train", "type": "llama3.argilla"}]}  # fmt: skip
SIMPO: Keys = {"rl": "simpo", "rl_beta": 0.1, "cpo_alpha": 1.0, "simpo_gamma": 0.5, "warmup_ratio": None, "warmup_steps": 5,
               "datasets": [{"path": "acme/pairs", "type": "chat_template.argilla"}]}  # fmt: skip
GRPO: Keys = {
    "rl": "grpo", "gradient_accumulation_steps": 16, "trl": {"beta": 0.001, "max_completion_length": 256, "use_vllm": False,
                          "num_generations": 4, "reward_funcs": ["rewards.length"], "log_completions": True},
    "datasets": [{"path": "acme/sums", "type": "rewards.rows", "split": "train"}],
}  # fmt: skip
PRM: Keys = {
    "process_reward_model": True, "model_type": "AutoModelForTokenClassification", "num_labels": 2,
    "remove_unused_columns": False,
    "datasets": [{"path": "acme/steps", "type": "stepwise_supervised", "split": "train",
                  "step_separator": "\n", "max_completion_length": 512, "train_on_last_step_only": False}],
}  # fmt: skip
REWARD: Keys = {
    "reward_model": True, "model_type": "AutoModelForSequenceClassification", "num_labels": 1,
    "center_rewards_coefficient": 0.01, "chat_template": "chatml",
    "datasets": [{"path": "acme/pairs", "type": "bradley_terry.chat_template"}],
}  # fmt: skip
VISION: Keys = {
    "processor_type": "AutoProcessor", "skip_prepare_dataset": True, "remove_unused_columns": False,
    "sample_packing": False, "chat_template": "llava",
    "datasets": [{"path": "acme/pictures", "type": "chat_template", "split": "train[:1%]",
                  "field_messages": "messages"}],
}  # fmt: skip
QAT: Keys = {
    "qat": {
        "activation_dtype": "int8",
        "weight_dtype": "int4",
        "group_size": 32,
        "quantize_embedding": True,
    }
}
MOE: Keys = {
    "base_model": "acme/Mixture-8x1B",
    "model_config": {"output_router_logits": True},
    "unfrozen_parameters": ["gate"],
}
GONE: Keys = {
    "gptq_groupsize": None,
    "gptq_model_v1": None,
    "eta_min": 1e-6,
    "adam_eps": 1e-8,
    "torch_dtype": "bfloat16",
}
STREAMED: Keys = {
    "pretraining_dataset": [{"path": "acme/web", "name": "en", "type": "pretrain"}],
    "max_steps": 100,
}

_SFT = {"alpaca": ALPACA, "chats": CHATS, "two": TWO}
_METHODS = {"lora": LORA, "targets": TARGETS, "qlora": QLORA, "full": FULL}
_HABITS = {"tidy": HABITS, "old": OLD_HABITS}
_RL = {
    "dpo": DPO, "turns": TURNS, "pairs": PAIRS, "own": OWN_PAIRS, "orpo": ORPO, "kto": KTO, "simpo": SIMPO,
    "grpo": GRPO, "prm": PRM, "reward": REWARD,
}  # fmt: skip
_NO_EVALUATION: Keys = {"val_set_size": 0.0, "evals_per_epoch": None}
_SPECIAL: dict[str, Keys] = {
    "lora packed liger": LORA | ALPACA | HABITS | PACKED | LIGER,
    "full packed cce": FULL | CHATS | HABITS | PACKED | CCE,
    "full fsdp2": FULL | CHATS | HABITS | FSDP2,
    "lora fsdp2 packed": LORA | ALPACA | HABITS | FSDP2 | PACKED,
    "full fsdp1 words": FULL | ALPACA | HABITS | FSDP1,
    "qlora fsdp1 words": QLORA | ALPACA | HABITS | FSDP1 | {"optimizer": "adamw_torch"},
    "full zero": FULL | ALPACA | HABITS | ZERO,
    "lora zero": LORA | CHATS | HABITS | ZERO,
    "full 8bit optimizer": FULL | ALPACA | HABITS | EIGHT,
    "lora 8bit optimizer": LORA | CHATS | OLD_HABITS | EIGHT,
    "lora 8bit weights": LORA | ALPACA | OLD_HABITS | {"load_in_8bit": True} | EIGHT,
    "qat": FULL | CHATS | HABITS | QAT,
    "qat fsdp2": FULL | CHATS | HABITS | QAT | FSDP2 | {"save_only_model": True},
    "moe lora": LORA | ALPACA | HABITS | MOE,
    "moe full fsdp2": FULL | ALPACA | HABITS | MOE | FSDP2,
    "mxfp4": LORA | CHATS | HABITS | {"model_quantization_config": "Mxfp4Config",
              "model_quantization_config_kwargs": {"dequantize": True}},
    "keys of the past": LORA | ALPACA | OLD_HABITS | GONE,
    "streamed": FULL | {k: v for k, v in HABITS.items() if "eval" not in k} | STREAMED | {"val_set_size": 0.0},
    "auto resume": LORA | ALPACA | HABITS | {"auto_resume_from_checkpoints": True},
    "vision lora": LORA | HABITS | VISION | {"lora_target_linear": None, "lora_target_modules": "model.language_model.layers.[\\d]+.self_attn.q_proj"},
    "vision full": FULL | HABITS | VISION,
    "dora": LORA | ALPACA | HABITS | {"peft_use_dora": True, "lora_qkv_kernel": False, "lora_o_kernel": False, "lora_mlp_kernel": False},
    "relora": LORA | ALPACA | OLD_HABITS | {"relora": True, "jagged_restart_steps": 100, "jagged_restart_warmup_steps": 10, "jagged_restart_anneal_steps": False},
    "llmish tokens": LORA | CHATS | HABITS | {"special_tokens": {"pad_token": "<pad>", "eos_token": "<|im_end|>"}, "tokens": ["<|im_start|>"]},
    "muon": FULL | ALPACA | HABITS | {"optimizer": "muon"},
    "schedulers": FULL | ALPACA | HABITS | {"lr_scheduler": "constant_with_warmup", "warmup_ratio": None, "warmup_steps": 10.0},
}  # fmt: skip

CONFIGURATIONS: dict[str, Keys] = {
    **{
        f"{method} {rows} {habit}": MODEL
        | STEPS
        | _METHODS[method]
        | _SFT[rows]
        | _HABITS[habit]
        | ({"load_in_4bit": True} if method == "qlora" else {})
        for method in _METHODS
        for rows in _SFT
        for habit in _HABITS
    },
    **{
        f"{method} {kind}": MODEL | STEPS | _METHODS[method] | HABITS | _NO_EVALUATION | _RL[kind]
        for method in ("lora", "full")
        for kind in _RL
    },
    **{name: MODEL | STEPS | keys for name, keys in _SPECIAL.items()},
}

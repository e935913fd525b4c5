"""TRL's files for `trl sft`, `trl dpo` and `trl kto`: SFTConfig, DPOConfig, KTOConfig,
ModelConfig and ScriptArguments over TrainingArguments; the Alignment Handbook's too.

Which trainer reads a file stands in no file: a name that DPO or KTO alone has tells it.
"""

from envtune.settings.dialects import trainer, trainer_values
from envtune.settings.dialects import trl_values as values
from envtune.settings.dialects.rules import (
    ANY,
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

_NOTHING = Refused("Axolotl has no setting for it", (False, 0, []))
_ROLLOUTS = Refused("rewards are functions of yours; set AXOLOTL_RL=grpo and AXOLOTL_TRL")
_MIXER = Refused(
    "weights and splits of a mixture are not followed; set AXOLOTL_DATASETS", instead="datasets"
)


def _alike(rule: Rule, *names: str) -> Table:
    return dict.fromkeys(names, rule)


MODEL: Table = {
    "model_name_or_path": "base_model",
    "model_revision": Becomes(TEXT, lambda value, others: {} if value == "main" else
                              {"model_revision": value}),
    "dtype": Becomes(TEXT, trainer_values.dtype),
    "torch_dtype": Becomes(TEXT, trainer_values.dtype),
    "use_flash_attention_2": Becomes(FLAG, trainer_values.flash),
    "tokenizer_name_or_path": "tokenizer_config",
    "use_liger": Becomes(FLAG, trainer_values.liger),
    "model_init_kwargs": Refused("set the keys themselves, e.g. attn_implementation"),
    "use_peft": Becomes(FLAG, values.method),
    "lora_r": values.tuned("lora_r"),
    "lora_alpha": values.tuned("lora_alpha"),
    "lora_dropout": values.tuned("lora_dropout"),
    "lora_target_modules": Becomes(TEXTS, values.targets),
    "lora_target_parameters": values.tuned("lora_target_parameters"),
    "lora_modules_to_save": values.tuned("lora_modules_to_save"),
    "lora_task_type": Refused("only CAUSAL_LM is tuned here", ("CAUSAL_LM",)),
    "use_rslora": values.tuned("peft_use_rslora"),
    "use_dora": values.tuned("peft_use_dora"),
    "bnb_4bit_quant_type": values.quantized("bnb_4bit_quant_type"),
    "use_bnb_nested_quant": values.quantized("bnb_4bit_use_double_quant"),
    "bnb_4bit_quant_storage": values.quantized("bnb_4bit_quant_storage"),
    "router_aux_loss_coef": Noted("the model's own share of the routers' loss counts"),
}  # fmt: skip

DATA: Table = {
    "dataset_name": "datasets.0.path",
    "dataset_id_or_path": "datasets.0.path",
    "dataset_config": "datasets.0.name",
    "dataset_train_split": Becomes(TEXT, lambda split, others: {} if split == "train" else
                                   {"datasets.0.split": split}),
    "dataset_test_split": Becomes(TEXT, values.test_split),
    "datasets": Becomes(ANY, values.mixture),
    "dataset_mixture": Becomes(ANY, values.mixture),
    "dataset_mixer": _MIXER,
    "dataset_splits": Noted(),
    "dataset_configs": Noted(),
    "test_split_size": Becomes(NUMBER, lambda share, others: {"val_set_size": share}),
    "dataset_text_field": Becomes(TEXT, values.text_field),
    "dataset_streaming": _NOTHING,
    "streaming": _NOTHING,
    "ignore_bias_buffers": Noted("Axolotl trains without that"),
    "dataset_kwargs": Refused("Axolotl has no setting for it"),
    "preprocessing_num_workers": "dataset_num_proc",
    "chat_template": Becomes(TEXT, values.chat_template),
    "chat_template_path": Becomes(TEXT, values.template_path),
    "eos_token": "special_tokens.eos_token",
    "pad_token": "special_tokens.pad_token",
    "max_length": "sequence_len",
    "max_seq_length": "sequence_len",
    "max_prompt_length": Becomes(NUMBER, values.preference("max_prompt_len")),
    "truncation_mode": Noted("a row that is too long is told, by excess_length_strategy"),
    "shuffle_dataset": Noted("rows are always shuffled"),
    "packing": "sample_packing",
    "packing_strategy": Noted("whole rows are packed"),
    "eval_packing": "eval_sample_packing",
    "padding_free": Becomes(FLAG, lambda on, others: {"batch_flattening": True} if on else {}),
    "pad_to_multiple_of": Noted("rows are padded to the longest of a batch"),
    "assistant_only_loss": Becomes(FLAG, values.answers_only),
    "completion_only_loss": Becomes(FLAG, values.completions_only),
}  # fmt: skip

PREFERENCES: Table = {
    "beta": Becomes(NUMBER, values.beta),
    "loss_type": Becomes(TEXTS, values.loss),
    "loss_weights": Becomes(ANY, values.preference("dpo_loss_weights")),
    "label_smoothing": Becomes(NUMBER, values.preference("dpo_label_smoothing")),
    "use_weighting": Becomes(FLAG, values.preference("dpo_use_weighting")),
    "desirable_weight": Becomes(NUMBER, values.preference("kto_desirable_weight")),
    "undesirable_weight": Becomes(NUMBER, values.preference("kto_undesirable_weight")),
    "precompute_ref_log_probs": Becomes(FLAG, values.preference("precompute_ref_log_probs")),
    "precompute_ref_batch_size": Noted("Axolotl's own size of the batch counts"),
    "disable_dropout": Noted("TRL's trainer under Axolotl keeps its own"),
    "f_divergence_type": Refused("Axolotl has no setting for it", ("reverse_kl",)),
    "f_alpha_divergence_coef": Noted("only another divergence reads it"),
    "discopop_tau": Noted("only that loss reads it"),
    "sync_ref_model": _NOTHING,
    "ref_model_mixup_alpha": Noted("only sync_ref_model reads it"),
    "ref_model_sync_steps": Noted("only sync_ref_model reads it"),
    "ld_alpha": _NOTHING,
    "center_rewards_coefficient": Refused("set AXOLOTL_REWARD_MODEL=true with Axolotl's keys"),
    **_alike(_ROLLOUTS, "reward_funcs", "reward_model_name_or_path", "num_generations"),
    **_alike(Noted(), "max_completion_length", "num_iterations", "use_vllm", "vllm_mode",
             "vllm_device", "vllm_max_model_len", "vllm_dtype", "vllm_server_host",
             "vllm_gpu_memory_utilization", "temperature", "log_completions", "scale_rewards",
             "reward_weights", "num_completions_to_print", "epsilon", "num_processes"),
}  # fmt: skip

TABLE: Table = {**trainer.ARGUMENTS, **MODEL, **DATA, **PREFERENCES}

MARKS = ("dataset_name", "dataset_id_or_path use_peft", "dataset_mixer", "dataset_mixture",
         "use_peft", "dataset_train_split", "dataset_test_split", "lora_task_type",
         "assistant_only_loss", "completion_only_loss", "use_bnb_nested_quant",
         "chat_template_path", "packing_strategy", "max_prompt_length",
         "model_name_or_path max_length", "model_name_or_path lora_r",
         "model_name_or_path lora_target_modules", "model_name_or_path load_in_4bit",
         "model_name_or_path datasets", "model_name_or_path attn_implementation",
         "model_name_or_path beta", "model_name_or_path eos_token",
         "num_generations", "reward_funcs")  # fmt: skip


def defaults(others: Others) -> Defaults:
    """TRL's own over those of TrainingArguments: all weights train without use_peft."""
    if {"num_generations", "reward_funcs"} & others.keys():  # refused as a whole
        return {}
    usual = {n: v for n, v in trainer.arguments_defaults(others).items() if n != "peft_method"}
    lora = {"lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.05}
    length = {} if "max_seq_length" in others else {"max_length": 1024}
    prefers = values.prefers(others)
    return {
        **usual,
        "learning_rate": 1e-6 if prefers else 2e-5,
        "use_peft": False,
        **(lora if others.get("use_peft") is True else {}),
        **length,
        **({} if prefers else {"packing": False}),
        **({"beta": 0.1} if prefers else {}),
        **({} if prefers or "completion_only_loss" in others else {"assistant_only_loss": False}),
        "dataset_test_split": "test",
    }

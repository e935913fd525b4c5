"""What becomes of the names of a dialect, one row each. Where a value decides, by example."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from envtune.reference import words
from envtune.settings.dialects import llamafactory, trainer, trl
from envtune.settings.dialects.rules import Becomes, Noted, Outcome, Refused, Rule, Table

# Values that show what a name does, where `_USUAL` would not be allowed or say little.
_EXAMPLES: Mapping[str, Any] = {
    "torch_dtype": "bfloat16",
    "dtype": "bfloat16",
    "embedding_size_multiple_of": 32,
    "quantization_method": "mxfp4",
    "validation_data_path": "held.jsonl",
    "response_template": "Answer:",
    "instruction_template": "Question:",
    "data_formatter_template": "{{question}} {{answer}}",
    "chat_template": "chatml",
    "padding_free": "huggingface",
    "train_sampling_strategy": "group_by_length",
    "peft_method": "lora",
    "target_modules": "all-linear",
    "num_train_epochs": 3,
    "max_steps": 100,
    "warmup_steps": 100,
    "liger_kernel_config": {"rope": True},
    "report_to": "wandb",
    "trackers": "wandb",
    "tracker": "wandb",
    "run_name": "trial",
    "log_level": "debug",
    "paths.huggingface_cache": "/cache",
    "preprocess.sample_size": 1000,
    "preprocess.cutoff_len": 2048,
    "preprocess.filter_langs": ["en", "fr"],
    "train.min_learning_rate": 2e-5,
    "train.resume_from": "checkpoint-100",
    "logging.console_level": "info",
    "orchestration.post_finetune": ["export-merged", "serve-vllm"],
    "output_params.train_ratio": 0.95,
    "save_strategy": "epoch",
    "train.report_to": "wandb",
    "eval_strategy": "steps",
    "evaluation_strategy": "steps",
    "accelerate_launch_args": {"main_process_port": 29501},
    "multiGPU": {"main_process_port": 29501},
    "template": "chatml",
    "datasets": [
        {"dataset_name": "acme/rows", "max_samples": 100, "weight": 0.7},
        {"dataset_name": "acme/more", "weight": 0.3},
    ],
}
_USUAL = {"boolean": True, "integer": 1, "number": 0.5}
# Neighbours that a rule asks for.
_BESIDE = {"train.lr_scheduler": "cosine", "train.learning_rate": 2e-4, "use_liger_kernel": True}
_SHOWN = 48
# The same for a dialect whose names mean something else elsewhere: examples, and neighbours.
_OF: tuple[tuple[Table, Mapping[str, Any], Mapping[str, Any]], ...] = (
    (
        llamafactory.TABLE,
        {
            "stage": "kto", "finetuning_type": "full", "lora_target": "all", "pref_loss": "orpo",
            "template": "llama3", "dataset": "acme/rows", "eval_dataset": "acme/held",
            "mix_strategy": "interleave_over",
            "add_tokens": "<a>,<b>", "add_special_tokens": "<a>,<b>", "flash_attn": "fa2",
            "additional_target": "embed_tokens,lm_head", "quantization_bit": 8,
            "deepspeed": "ds_z3_config.json",
        },
        {"stage": "dpo", "finetuning_type": "lora", "dataset_dir": "ONLINE",
         "dataset": "acme/rows"},
    ),
    (
        trl.TABLE,
        {
            "dataset_test_split": "test", "datasets": [{"path": "acme/rows"}],
            "dataset_mixture": {"datasets": [{"id": "acme/rows"}]}, "loss_type": ["ipo"],
            "dataset_train_split": "train_sft", "dataset_text_field": "story",
            "lora_target_modules": "all-linear",
        },
        {"use_peft": True, "load_in_4bit": True, "dataset_name": "acme/rows",
         "eval_strategy": "steps", "beta": 0.1},
    ),
)  # fmt: skip


def rows(table: Table) -> list[tuple[str, str]]:
    """Each name and what becomes of it; a section of the SFT trainer's flags is one row."""
    borrowed = set() if table is trainer.TABLE else set(_borrowed(table))
    made = [(f"`{section}.*`", "as the SFT trainer's flags") for section in sorted(borrowed)]
    for name, rule in table.items():
        section, _, flag = name.rpartition(".")
        if section not in borrowed or flag not in trainer.TABLE:
            made.append((f"`{name}`", _becomes(name, rule, *_shown(table))))
    return made


def own_rows(table: Table) -> list[tuple[str, str]]:
    """The rows of what a table has beside those of TrainingArguments."""
    shared = {} if table is trainer.TABLE else trainer.ARGUMENTS
    own = {name: rule for name, rule in table.items() if shared.get(name) is not rule}
    named = own.keys() - (set(silent(table)) if shared else set())
    return [row for row in rows(table) if row[0].strip("`") in named]


def silent(table: Table) -> list[str]:
    """The names that are passed over without a word."""
    return sorted(name for name, rule in table.items() if rule == Noted())


def _shown(table: Table) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Examples, and the neighbours that they stand beside."""
    theirs = next(((e, b) for other, e, b in _OF if other is table), ({}, {}))
    return {**_EXAMPLES, **theirs[0]}, {**_BESIDE, **theirs[1]}


def _borrowed(table: Table) -> Iterator[str]:
    """The sections that hold the trainer's own table, or its part about adapters."""
    for section in {name.rpartition(".")[0] for name in table} - {""}:
        rules = {flag: table.get(f"{section}.{flag}") for flag in trainer.LORA}
        if rules == trainer.LORA:
            yield section


def _becomes(name: str, rule: Rule, examples: Mapping[str, Any], beside: Mapping[str, Any]) -> str:
    if isinstance(rule, Becomes):
        first = next(words.options(rule.node, {})).get("type", "string")
        value = examples.get(name, _USUAL.get(str(first), "text"))
        made = rule.make(value, {**beside, name: value})
        told = [_outcome(o) for o in (made if isinstance(made, list) else [made])]
        return f"`{_text(value)}` -> {'; '.join(told)}" if _is_short(value) else "; ".join(told)
    return f"`{rule}`" if isinstance(rule, str) else _outcome(rule)


def _outcome(outcome: Outcome) -> str:
    if isinstance(outcome, Refused):
        but = " or ".join(f"`{_text(value)}`" for value in outcome.unless)
        return f"refused{f' but for {but}' if but else ''}: {outcome.reason}"
    if isinstance(outcome, Noted):
        return f"no effect: {outcome.reason}" if outcome.reason else "no effect"
    return ", ".join(
        f"`{key}: {_text(value)}`" if _is_short(value) else f"`{key}`"
        for key, value in outcome.items()
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _is_short(value: Any) -> bool:
    return len(_text(value)) <= _SHOWN and _text(value).isprintable()

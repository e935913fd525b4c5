"""Named sets of values, weaker than anything else that the user sets.

The keys are Axolotl's and envtune's own. A hardware profile holds what the industrial
pipeline recommends for its cards, but for fp16: both cards have bf16, which cannot overflow.
"""

from collections.abc import Mapping
from typing import Any

PROFILES: Mapping[str, Mapping[str, Any]] = {
    # Does it run at all? Few rows, full precision, tiny batches: also on a CPU.
    "debug": {
        "SFT_SAMPLE_SIZE": 16,
        "bf16": False,
        "fp16": False,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "num_epochs": 1,
        "sequence_len": 512,
        "SFT_LOG_LEVEL": "DEBUG",
    },
    # The shortest training that goes through every part.
    "minimal": {"micro_batch_size": 1, "num_epochs": 1, "max_steps": 5},
    # The least GPU memory that Axolotl trains an adapter in, at the same global batch.
    "memory-tight": {
        "adapter": "qlora",
        "gradient_checkpointing": True,
        "micro_batch_size": 1,
        "gradient_accumulation_steps": 16,
    },
    "rtx4090": {
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 4,
        "gradient_checkpointing": True,
        "dataloader_pin_memory": True,
    },
    "rtx3090": {
        "micro_batch_size": 12,
        "gradient_accumulation_steps": 2,
        "gradient_checkpointing": False,
    },
}

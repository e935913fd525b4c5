"""What was trained and the base beside it, loaded as training loads them.

Axolotl's own loader quantises, patches and resizes as it did for the training; only what
spreads a training over processes or saves its memory is left out.
"""

import copy
import gc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from axolotl.integrations.base import BasePlugin

from envtune.engine.export import fourbit
from envtune.resolve.owned import PLUGIN

T = TypeVar("T")
TUNED, BASE = "tuned", "base"
# Of a training with several ranks; one process loads the model here.
_SPREAD = (
    "fsdp", "deepspeed", "dp_shard_size", "dp_replicate_size", "tensor_parallel_size",
    "context_parallel_size", "sequence_parallel_degree",
)  # fmt: skip
# Of a training's speed and memory, and wrong or of no use to a model that answers.
_TRAINING = (
    "sample_packing", "eval_sample_packing", "gradient_checkpointing", "torch_compile",
    "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "lora_embedding_kernel",
)  # fmt: skip


class ReadingPlugin(BasePlugin):  # type: ignore[misc]  # axolotl ships no types
    """Takes the place of the training's plugin: declares the same keys, and writes nothing."""

    def get_input_args(self) -> str:
        return "envtune.engine.rows.RowArgs"


@dataclass(frozen=True)
class Trained:
    """A run's configuration as Axolotl holds it, the result's folder and its tokenizer."""

    cfg: Any
    artifact: Path
    adapter: bool
    tokenizer: Any

    def each(self, measure: Callable[[str, Any], T]) -> dict[str, T]:
        """Calls `measure` with the tuned model, then with the base, each in evaluation mode.

        An adapter is switched off for the base; of models trained whole only one is held.
        """
        if not self.adapter:
            return {side: self._whole(side, measure) for side in (TUNED, BASE)}
        model = self.load(TUNED)
        tuned = measure(TUNED, model)
        with model.disable_adapter():
            return {TUNED: tuned, BASE: measure(BASE, model)}

    def load(self, side: str) -> Any:
        """The model of a side, in evaluation mode; an adapter brings its base along."""
        if self.adapter:
            return self._load(lora_model_dir=str(self.artifact))
        folder = str(self.artifact) if side == TUNED else self.cfg.base_model
        return self._load(base_model=folder, base_model_config=folder)

    def _whole(self, side: str, measure: Callable[[str, Any], T]) -> T:
        import torch

        measured = measure(side, self.load(side))
        gc.collect()
        torch.cuda.empty_cache()
        return measured

    def _load(self, **changes: str) -> Any:
        from axolotl.loaders.model import ModelLoader

        cfg = copy.deepcopy(self.cfg)
        for key in _TRAINING:
            cfg[key] = False
        cfg.rl = None  # its trainers load the adapter themselves
        for key, value in changes.items():
            cfg[key] = value
        model, _ = ModelLoader(cfg, self.tokenizer, inference=True).load()
        fourbit.keep_exact(model)
        return model.eval()


def read(config: Path, artifact: Path, dataset: str | None) -> Trained:
    """The run of a rendered YAML. `dataset`: a file whose rows take the validation rows' place."""
    from axolotl.cli.config import load_cfg
    from axolotl.loaders.tokenizer import load_tokenizer
    from axolotl.utils.dict import DictDefault
    from transformers import AutoTokenizer

    plain = yaml.safe_load(config.read_text())
    plain = {key: value for key, value in plain.items() if not key.startswith(_SPREAD)}
    ours = f"{__name__}.{ReadingPlugin.__name__}"
    plain["plugins"] = [ours if name == PLUGIN else name for name in plain["plugins"]]
    if dataset:
        plain |= {"test_datasets": [_like(plain["datasets"][0], dataset)], "val_set_size": 0}
    cfg = load_cfg(DictDefault(plain))
    trust = bool(cfg.trust_remote_code)
    tokenizer = AutoTokenizer.from_pretrained(artifact, trust_remote_code=trust)
    # The artifact's is for requests; rows are laid out by the template that they were trained with.
    tokenizer.chat_template = load_tokenizer(cfg).chat_template
    adapter = (artifact / "adapter_config.json").exists()
    return Trained(cfg, artifact, adapter, tokenizer)


def _like(first: Mapping[str, Any], path: str) -> dict[str, Any]:
    """A data set of a file that reads as the first one does."""
    elsewhere = ("name", "data_files", "split", "revision", "shards", "ds_type")
    kept = {key: value for key, value in first.items() if key not in elsewhere}
    suffix = Path(path).suffix.lstrip(".")
    kind = {"jsonl": "json", "txt": "text"}.get(suffix, suffix)
    return {**kept, "path": path, "ds_type": kind, "split": "train"}

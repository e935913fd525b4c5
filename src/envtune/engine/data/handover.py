"""Hands prepared rows to Axolotl, which then prepares none itself."""

from pathlib import Path
from typing import Any

from envtune import files
from envtune.runs.contents import PREPARED

# Axolotl takes the mask of packed rows away from models that make their own.
_UNMASKED = ("mamba", "gemma3")


def say(run_dir: Path, prepared: dict[str, Any]) -> None:
    """Notes in the run folder where its rows lie, and whether Axolotl could not make them."""
    path = run_dir / PREPARED
    path.parent.mkdir(exist_ok=True)
    names = ("folder", "hit", "because", "required")
    files.write_json(path, {name: prepared.get(name) for name in names})


def meta(cfg: Any, run_dir: Path) -> Any:
    """Axolotl's TrainDatasetMeta of the rows that were prepared for a run, or None: where none
    were, or this node has not the volume that they are on, Axolotl makes the same ones.

    The steps are counted as axolotl.utils.data.sft counts them.
    """
    said = run_dir / PREPARED
    told = files.read_json(said) if said.exists() else None
    if told is None:
        return None
    folder = Path(told["folder"])
    if not (folder / "train").is_dir():
        if told.get("required"):
            raise FileNotFoundError(f"the prepared rows are not on this node: {folder}")
        return None
    from axolotl.common.datasets import TrainDatasetMeta
    from axolotl.utils.trainer import calculate_total_num_steps

    train, held = _load(folder / "train", cfg), _load(folder / "eval", cfg)
    steps = calculate_total_num_steps(cfg, train)
    return TrainDatasetMeta(train, held, min(steps, cfg.max_steps) if cfg.max_steps else steps)


def _load(folder: Path, cfg: Any) -> Any:
    if not folder.exists():
        return None
    from datasets import load_from_disk

    rows = load_from_disk(str(folder))
    if cfg.sample_packing and cfg.model_config_type in _UNMASKED:
        rows = rows.remove_columns("attention_mask")
    return rows

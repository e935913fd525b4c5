"""Whether the checkpoints of a run have room where they go, by the model's size."""

from collections.abc import Iterator
from pathlib import Path

from envtune import files
from envtune.errors import Exit, Problem
from envtune.resolve import saving
from envtune.resolve.config import Facts
from envtune.resolve.sizes import Size
from envtune.settings.typed import Settings


def problems(settings: Settings, facts: Facts) -> Iterator[Problem]:
    """A volume on which not one checkpoint fits."""
    name, folder = _where(settings, facts)
    needed, free = _checkpoint(settings, facts), files.free(folder)
    if needed and free is not None and free < needed:
        what = f"a checkpoint needs about {needed:,} bytes, and {free:,} are free in {folder}"
        yield Problem(name, f"{what}; free space, or name a folder of another volume", Exit.DISK)


def warnings(settings: Settings, facts: Facts) -> Iterator[str]:
    """A volume on which not all of them fit that stay, and the next one before the oldest goes."""
    name, folder = _where(settings, facts)
    kept = settings.axolotl.get("save_total_limit")
    count = 1 + (int(kept.value) if kept is not None and kept.value else saving.KEPT)
    each, free = _checkpoint(settings, facts), files.free(folder)
    if each and free is not None and each <= free < count * each:
        yield (
            f"{name}: {count} checkpoints of about {each:,} bytes need {count * each:,}, and "
            f"{free:,} are free in {folder}; fewer are kept by AXOLOTL_SAVE_TOTAL_LIMIT"
        )


def _checkpoint(settings: Settings, facts: Facts) -> int:
    """Bytes, or 0 where the model's size is not known or nothing is saved on the way."""
    plain = {key: setting.value for key, setting in settings.axolotl.items()}
    if plain.get("save_strategy") == "no" or settings.get("SFT_PRETEND_GPU"):
        return 0
    return Size({"adapter": "lora", **plain}, facts.model.config).checkpoint


def _where(settings: Settings, facts: Facts) -> tuple[str, Path]:
    named = settings.axolotl.get("output_dir")
    if named is not None and named.value:
        return named.name, Path(str(named.value)).absolute()
    return "SFT_OUTPUTS_DIR", Path(facts.outputs).absolute()

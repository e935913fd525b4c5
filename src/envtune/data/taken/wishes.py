"""What is asked of the rows, out of the settings and of Axolotl's keys."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from envtune.data.taken import filters, language, split
from envtune.data.taken.filters import Rule
from envtune.settings.own.preparation import ALL_EXHAUSTED, STRATEGY, WEIGHTS


@dataclass(frozen=True)
class Wanted:
    """What is asked of the rows. `held` is Axolotl's val_set_size; `ordered` keeps a mixture's rows
    in the mixture's order, where the trainer does not shuffle them; `drops` counts a row that
    cannot be trained on among the dropped ones, where it would be refused."""

    rules: tuple[Rule, ...] = ()
    unique: bool = False
    sample: int | None = None
    held: float = 0
    weights: tuple[float, ...] = ()
    strategy: str = ALL_EXHAUSTED
    seed: int = 42
    ordered: bool = False
    drops: bool = False

    @property
    def looks(self) -> bool:
        """Whether a row's texts decide anything."""
        return bool(self.rules or self.unique or self.held)

    @property
    def twice(self) -> bool:
        """Whether every row has to be known before the first is handed on."""
        return bool(self.weights) or split.is_count(self.held)


def wanted(
    setting: Callable[[str], Any], axolotl: Mapping[str, Any], *, drops: bool = False
) -> Wanted:
    """The wishes of a configuration: envtune's settings and Axolotl's keys."""
    asked, seed = setting("SFT_LANGUAGES"), axolotl.get("seed")
    return Wanted(
        rules=(*filters.rules(setting), *([language.rule(asked)] if asked else ())),
        unique=bool(axolotl.get("dataset_exact_deduplication")),
        sample=setting("SFT_SAMPLE_SIZE"),
        held=0 if axolotl.get("test_datasets") else axolotl.get("val_set_size") or 0,
        weights=tuple(setting(WEIGHTS) or ()),
        strategy=setting(STRATEGY),
        seed=Wanted.seed if seed is None else seed,
        ordered=axolotl.get("shuffle_merged_datasets") is False,
        drops=drops,
    )

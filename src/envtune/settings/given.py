"""What the user gave, under today's names and with absolute paths: what every step goes by."""

from dataclasses import replace

from envtune.settings import loading, passed_over, paths, publish_targets, resuming, retired
from envtune.settings.sources import Inputs
from envtune.settings.typed import Settings


def settings(inputs: Inputs) -> Settings:
    """Types, translates and locates. Raises Refused where a name or a type is wrong."""
    typed = loading.load(inputs)
    problems = (
        *retired.problems(typed), *publish_targets.problems(typed), *resuming.problems(typed)
    )  # fmt: skip
    today = passed_over.without(publish_targets.translated(retired.translated(typed)))
    today = resuming.translated(today)
    return replace(paths.located(today), problems=problems)

"""What comes of a question about a repository or a store."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from envtune.errors import Exit, Problem


@dataclass(frozen=True)
class Answer:
    """What came of a question: a problem or a warning, or neither, a model's config.json, and what
    modelfiles.tokenizer tells of a tokenizer."""

    problem: Problem | None = None
    warning: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: Mapping[str, Any] = field(default_factory=dict)


# What is asked, and what is said where that takes too long.
Question = tuple[Callable[[], Answer], Callable[[], Answer]]


def refuse(name: str, message: str) -> Answer:
    """A place that a run may not have, or not write to."""
    return Answer(Problem(name, message, Exit.ACCESS))

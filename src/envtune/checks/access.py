"""Whether the run may have its models and data sets, told before any GPU time is spent.

A local folder has to be whole. A repository of the Hub has to be readable with the token
that is there, or, where the Hub may not or cannot be asked, to lie whole in its cache.
Every line names the variable that asks for it; no line holds the token.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from envtune.artifacts import modelfiles
from envtune.errors import Exit, Problem, Refused
from envtune.resolve import facts as read
from envtune.resolve.config import Facts
from envtune.settings import publish_targets
from envtune.settings.paths import FROM_THE_HUB, near_file
from envtune.settings.typed import Settings
from envtune.transfer import availability
from envtune.transfer.repositories import models, repositories


def local_problems(settings: Settings, facts: Facts) -> list[Problem]:
    """What is missing or damaged in the local folders of models and tokenizers."""
    return [
        Problem(settings.axolotl[key].name, text, Exit.ACCESS)
        for key, path, parts in models(settings)
        if path.startswith("/")
        for text in modelfiles.problems(Path(path), parts)
    ]


def verify(settings: Settings, facts: Facts) -> Facts:
    """`facts` with what is known of a model and a tokenizer that are not local, and warnings.
    Raises Refused.

    Nobody is asked, and nothing heavy imported, where everything is local.
    """
    wanted, places = repositories(settings), publish_targets.wanted(settings)
    if not wanted and not places:
        return facts
    local_only = settings.get("SFT_LOCAL_FILES_ONLY")
    known = availability.ask(wanted, places, facts.environ, local_only=local_only)
    if problems := [answer.problem for answer in known.answers if answer.problem]:
        raise Refused(_merged([_with_near(settings, problem) for problem in problems]))
    config = next((a.config for a in known.answers if a.config), facts.model.config)
    told = next((a.tokenizer for a in known.answers if a.tokenizer), {})
    return replace(
        facts,
        model=replace(facts.model, config=config),
        tokenizer=facts.tokenizer or read.told_tokenizer(told),
        local=facts.local or known.alone,
        warnings=tuple(answer.warning for answer in known.answers if answer.warning),
    )


def _with_near(settings: Settings, problem: Problem) -> Problem:
    """With the local folder that was perhaps meant, of a slip in whose name the Hub was asked."""
    named = (settings.axolotl[key] for key in FROM_THE_HUB if key in settings.axolotl)
    path = next((str(s.value) for s in named if s.name == problem.name), "")
    return replace(problem, message=problem.message + near_file(path))


def _merged(problems: Sequence[Problem]) -> list[Problem]:
    """One line for what is said of several variables in the same words."""
    names: dict[str, list[str]] = {}
    for problem in problems:
        names.setdefault(problem.message, []).append(problem.name)
    return [
        Problem(", ".join(dict.fromkeys(several)), message, Exit.ACCESS)
        for message, several in names.items()
    ]

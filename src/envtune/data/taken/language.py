"""In which language is a text? Told by py3langid, which ships its model and asks nobody."""

from collections.abc import Iterable, Sequence

from envtune.data.taken.filters import Rule
from envtune.settings import languages

# A language loses against one that is e^5 times as likely; close relatives share short texts.
_DOUBT = 5.0
# Characters of a text that are looked at: more tells no more, and costs.
_ENOUGH = 2000


def in_one_of(text: str, asked: Iterable[str]) -> bool | None:
    """Whether a text is in one of the languages. None: it has too little to tell by."""
    scores = dict(_rank(text))
    best = max(scores.values())
    if best == min(scores.values()):
        return None
    return any(scores[languages.code(name)] > best - _DOUBT for name in asked)


def rule(asked: Sequence[str]) -> Rule:
    """Drops what is in none of the languages, prompt and answer together. A text that has too
    little to tell by, such as `42`, is of every language."""
    reason = f"language is none of {', '.join(asked)}"

    def judge(prompt: str, answer: str) -> str:
        text = f"{prompt[:_ENOUGH]}\n{answer[:_ENOUGH]}"
        return reason if in_one_of(text, asked) is False else ""

    return judge


def _rank(text: str) -> list[tuple[str, float]]:
    """Every language with its log-likelihood."""
    import py3langid

    found: list[tuple[str, float]] = py3langid.rank(text)
    return found

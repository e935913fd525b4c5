"""Whoever answers in a chat: what is known of it, and what it is asked. Pure."""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

TUNED, BASE = "tuned", "base"
# Tokens of an answer where nobody says: a base that has not learned to stop ends there.
NEW_TOKENS = 1024
# How an answer may end, besides by itself.
CUT = "length"

Messages = Sequence[Mapping[str, str]]
# Pieces of an answer as they come, each with how the answer ended, empty before its last.
Pieces = Generator[tuple[str, str], None, None]


@dataclass(frozen=True)
class About:
    """`place` is what answers. Where no chat was trained, `reason` says so. `several` turns, a
    `system` message and `columns` may be asked with; `base` is why there is no base to ask."""

    place: str
    reason: str = ""
    several: bool = True
    system: bool = True
    columns: tuple[str, ...] = ()
    base: str = ""


class Voice(Protocol):
    """Answers. Raises Refused with what is wrong with a question, Lost once it is gone."""

    @property
    def about(self) -> About:
        """What is known of it."""

    def answer(self, side: str, messages: Messages, columns: Mapping[str, str]) -> Pieces:
        """An answer as it comes; whoever closes the iterator ends it."""


@dataclass
class Turn:
    """A question and what each side has answered."""

    question: str
    answers: dict[str, str] = field(default_factory=dict)


@dataclass
class Conversation:
    """What has been said, in memory alone. A side hears its own answers, and the other's where it
    was not asked."""

    system: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    turns: list[Turn] = field(default_factory=list)

    def messages(self, side: str, question: str, about: About) -> list[dict[str, str]]:
        """What a side is asked: with what was said before, where that was trained."""
        asked = [("system", self.system)] if self.system and not about.reason else []
        for turn in self.turns if about.several and not about.reason else ():
            said = turn.answers.get(side) or next(iter(turn.answers.values()))
            asked += [("user", turn.question), ("assistant", said)]
        return [{"role": role, "content": text} for role, text in [*asked, ("user", question)]]


def written(text: str) -> str:
    """A text as it can be sent: halves of letters are question marks."""
    return text.encode(errors="replace").decode()

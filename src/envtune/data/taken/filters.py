"""Which rows are too short, too long, or hold what was not wanted: a reason, or none.

A length is in characters without the blanks around; a reason is the same text for each row of its
kind, so that rows can be counted by it.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

# Why a prompt and its answer are not taken, or nothing.
Rule = Callable[[str, str], str]

# An address that somebody can open; a bare name such as example.com may be a sentence's end.
_URL = re.compile(r"\bhttps?://[^\s/]|\bftp://[^\s/]|\bwww\.[\w-]+\.\w", re.IGNORECASE)
# A fence of backquotes wherever it stands, as models write it, of tildes where a line begins.
_CODE = re.compile(r"`{3}|^[ \t>*+-]*(?:\d+[.)][ \t]+)?~{3}", re.MULTILINE)
# What such a text cannot be without: looked for first, since most rows have none.
_URL_SIGNS, _CODE_SIGNS = ("://", "www."), ("```", "~~~")
_PARTS = (("PROMPT", "prompt"), ("RESPONSE", "answer"))


def rules(setting: Callable[[str], Any]) -> tuple[Rule, ...]:
    """The rules that are asked for; `setting` tells the value of one of envtune's settings."""
    found = [*_lengths(setting)]
    if setting("SFT_FILTER_URLS"):
        found.append(_holding(_URL, _URL_SIGNS, "holds a web address"))
    if setting("SFT_FILTER_CODE_BLOCKS"):
        found.append(_holding(_CODE, _CODE_SIGNS, "holds a block of code"))
    if setting("SFT_REQUIRE_ASCII"):
        found.append(_beyond_ascii)
    return tuple(found)


def _beyond_ascii(prompt: str, answer: str) -> str:
    return "" if prompt.isascii() and answer.isascii() else "holds characters beyond ASCII"


def _lengths(setting: Callable[[str], Any]) -> Iterator[Rule]:
    for index, (name, part) in enumerate(_PARTS):
        if least := setting(f"SFT_MIN_{name}_LENGTH"):
            yield _short(index, least, f"{part} shorter than {least} characters")
        if (most := setting(f"SFT_MAX_{name}_LENGTH")) is not None:
            yield _long(index, most, f"{part} longer than {most} characters")


def _short(index: int, least: int, reason: str) -> Rule:
    return lambda *texts: reason if len(texts[index].strip()) < least else ""


def _long(index: int, most: int, reason: str) -> Rule:
    return lambda *texts: reason if len(texts[index].strip()) > most else ""


def _holding(what: re.Pattern[str], signs: tuple[str, str], reason: str) -> Rule:
    def holds(text: str) -> bool:
        lower = text.lower()
        return (signs[0] in lower or signs[1] in lower) and what.search(text) is not None

    return lambda prompt, answer: reason if holds(prompt) or holds(answer) else ""

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
# As CommonMark fences it: three or more, at the start of a line, under quotes or a list too.
_CODE = re.compile(r"^[ \t>*+-]*(?:\d+[.)][ \t]+)?(?:`{3,}|~{3,})", re.MULTILINE)
_PARTS = (("PROMPT", "prompt"), ("RESPONSE", "answer"))


def rules(setting: Callable[[str], Any]) -> tuple[Rule, ...]:
    """The rules that are asked for; `setting` tells the value of one of envtune's settings."""
    found = [*_lengths(setting)]
    if setting("SFT_FILTER_URLS"):
        found.append(_holding(_URL, "holds a web address"))
    if setting("SFT_FILTER_CODE_BLOCKS"):
        found.append(_holding(_CODE, "holds a block of code"))
    return tuple(found)


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


def _holding(what: re.Pattern[str], reason: str) -> Rule:
    return lambda prompt, answer: reason if what.search(prompt) or what.search(answer) else ""

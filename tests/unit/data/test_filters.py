"""Which rows the filters drop, by a table, and why."""

from typing import Any

import pytest

from envtune.data.taken import filters
from envtune.settings.own import OWN

URL, CODE = {"SFT_FILTER_URLS": True}, {"SFT_FILTER_CODE_BLOCKS": True}
LEAST, MOST = {"SFT_MIN_PROMPT_LENGTH": 3}, {"SFT_MAX_RESPONSE_LENGTH": 3}

ROWS: list[tuple[dict[str, Any], str, str, str]] = [
    ({}, "", "", ""),
    (LEAST, "abc", "", ""),
    (LEAST, "ab", "abcdef", "prompt shorter than 3 characters"),
    (LEAST, "  ab \n", "", "prompt shorter than 3 characters"),
    (LEAST, "日本語", "", ""),
    ({"SFT_MIN_PROMPT_LENGTH": 0}, "", "", ""),
    ({"SFT_MAX_PROMPT_LENGTH": 0}, "a", "", "prompt longer than 0 characters"),
    ({"SFT_MAX_PROMPT_LENGTH": 0}, " ", "", ""),
    ({"SFT_MIN_RESPONSE_LENGTH": 2}, "abc", "a", "answer shorter than 2 characters"),
    (MOST, "abcdef", "abc", ""),
    (MOST, "abcdef", "abcd", "answer longer than 3 characters"),
    ({**LEAST, **MOST}, "a", "abcd", "prompt shorter than 3 characters"),
    (URL, "see https://example.com/a", "", "holds a web address"),
    (URL, "", "HTTP://EXAMPLE.COM", "holds a web address"),
    (URL, "", "www.example.com", "holds a web address"),
    (URL, "", "(http://[::1]/)", "holds a web address"),
    (URL, "ftp://host/file", "", "holds a web address"),
    (URL, "http and www. are words", "the scheme https:// alone", ""),
    (URL, "example.com", "a.b@example.com", ""),
    (URL, "awww.cute is nothing", "", ""),
    (CODE, "", "```python\nx\n```", "holds a block of code"),
    (CODE, "Write:\n~~~\nx", "", "holds a block of code"),
    (CODE, "", "1. so:\n   ```\n   x\n   ```", "holds a block of code"),
    (CODE, "", "> ```\n> x", "holds a block of code"),
    (CODE, "", "So: ```python\nx\n```", "holds a block of code"),
    (CODE, "use `x` and ``y``", "a ~~~ in a line", ""),
    ({"SFT_REQUIRE_ASCII": True}, "plain", "plain\n", ""),
    ({"SFT_REQUIRE_ASCII": True}, "plain", "pläin", "holds characters beyond ASCII"),
    ({}, "https://example.com", "```\nx", ""),
]


@pytest.mark.parametrize(("settings", "prompt", "answer", "reason"), ROWS)
def test_each_filter(settings: dict[str, Any], prompt: str, answer: str, reason: str) -> None:
    rules = filters.rules(lambda name: settings.get(name, OWN[name].default))
    told = [why for rule in rules if (why := rule(prompt, answer))]
    assert next(iter(told), "") == reason


def test_nothing_asked_for_is_no_rule() -> None:
    assert filters.rules(lambda name: OWN[name].default) == ()

"""What a user sees of some four hundred environments is what it was when it was recorded."""

import difflib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.replay import recording

CASES = recording.kept()
PARTS = 8


@pytest.fixture(scope="module", autouse=True)
def _preloaded() -> None:
    recording.preload()


def test_there_are_enough_and_of_every_kind() -> None:
    ends = [answer["code"] for kept in CASES for answer in kept["answers"]]
    assert len(CASES) >= 300
    assert {0, 1, 3, 4} <= set(ends)
    assert ends.count(0) > len(ends) / 4


@pytest.mark.parametrize("part", range(PARTS))
def test_nothing_that_a_user_sees_has_changed(part: int) -> None:
    """On purpose: python -m tests.replay.recording keeps it anew."""
    changed = [line for kept in CASES[part::PARTS] for line in _changes(kept)]
    assert not changed, "\n".join(changed[:200])


def _changes(kept: dict[str, Any]) -> Iterator[str]:
    """The lines that differ, below the environment that they answer."""
    for before, after in zip(kept["answers"], recording.answers(kept["case"]), strict=True):
        if before != after:
            yield f"{before['argv']} of {kept['case']}: {before['code']} -> {after['code']}"
            for name in sorted(before["left"].keys() | after["left"].keys()):
                texts = (answer["left"].get(name, "").splitlines() for answer in (before, after))
                yield from difflib.unified_diff(*texts, name, name, n=0, lineterm="")

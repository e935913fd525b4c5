"""docs/coming-from.md says what its readers will read: its lines are those of the replays."""

import re

import pytest

from tests.harness import ROOT

PAGE = (ROOT / "docs" / "coming-from.md").read_text()
REPLAYS = "\n".join(path.read_text() for path in (ROOT / "tests" / "replay").glob("test_*.py"))
CELLS = [row.split(" | ") for row in PAGE.splitlines() if row.startswith("| ")]
LINES = sorted(
    line
    for _, told in CELLS
    for line in re.findall(r"`([^`]+)`", told)
    if re.search(r"[a-z]: |; |\bno \w+ runs|no server|counts$|refuses$", line) and "=" not in line
)


def spoken(text: str) -> str:
    """Python's text without what quotes and joins it."""
    return re.sub(r"\s+", " ", re.sub(r'"\s*\n?\s*f?"', "", text).replace("\\\\", "\\"))


@pytest.mark.parametrize("line", LINES)
def test_a_line_of_the_page_is_proved_by_a_replay(line: str) -> None:
    assert line in spoken(REPLAYS)


def test_the_page_has_lines() -> None:
    assert len(LINES) > 12

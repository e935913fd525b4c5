"""The lines and the page about the rows as they are trained."""

from envtune.stages import learned

COUNTS = {
    "rows": 4, "tokens": 100, "learned": 30, "unlearned": 1, "endless": 2, "longest": 40,
    "ends": ["<|end|>"],
}  # fmt: skip


def test_the_counts_are_one_line_and_what_costs_a_night_is_warned_of() -> None:
    assert learned.counted(COUNTS) == (
        "4 rows of 100 tokens, the longest of 40; 30 tokens are learned (30%)"
    )
    assert list(learned.warnings(COUNTS)) == [
        "nothing is learned from 1 of 4 rows",
        "2 of 3 rows learn no end of a turn ('<|end|>'): after such rows the model does not stop",
    ]


def test_what_is_learned_is_marked_in_a_log_and_green_on_a_terminal() -> None:
    row = [["Q: 1+1\n", False], ["2", True]]
    assert learned.text(row, colour=False) == "Q: 1+1\n«2»"
    assert learned.text(row, colour=True) == "Q: 1+1\n\x1b[32m2\x1b[0m"


def test_a_row_cannot_command_the_terminal_and_a_long_one_is_cut() -> None:
    assert learned.text([["\x1b[2J\rhi", False]], colour=False) == "\\x1b[2J\\rhi"
    assert len(learned.text([["a" * 5000, True]], colour=False)) < 700


def test_the_page_shows_a_row_as_text() -> None:
    page = learned.page({"counts": COUNTS, "samples": [[["<b>", False], ["<i>", True]]]}, "a-run1")
    assert "&lt;b&gt;<mark>&lt;i&gt;</mark>" in page

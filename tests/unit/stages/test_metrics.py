"""What the measures of answers say, on answers that a reader can judge."""

import math
from typing import Any

import pytest

from envtune.stages import metrics

SENTENCES = [
    ("", 0),
    ("...", 0),
    ("Paris", 1),
    ("It costs 3.5 francs, e.g. here.", 1),
    ("Hello. How are you? Fine!", 3),
    ('He said "no." Then he left.', 2),
    ("- one\n- two\n\n- three", 3),
    ("Parigi è in Francia. È bella.", 2),
    ("パリです。はい。", 2),
]


@pytest.mark.parametrize(("text", "count"), SENTENCES)
def test_sentences_end_where_a_reader_ends_them(text: str, count: int) -> None:
    assert metrics.sentences(text) == count


def test_words_hold_letters_digits_and_apostrophes() -> None:
    assert metrics.words("It's 3 words, - really!") == 4


def test_repetition_is_the_share_of_grams_that_stood_before() -> None:
    assert metrics.repetition([1, 2, 3]) == 0.0
    assert metrics.repetition(range(30)) == 0.0
    assert metrics.repetition([7] * 13) == 0.9  # ten grams, all the same
    assert metrics.repetition([1, 2, 3, 4] * 2) == 0.2  # the fifth is the first


def test_distinct_n_is_over_all_answers() -> None:
    assert metrics.distinct([[1, 2], [1, 2]], 1) == 0.5
    assert metrics.distinct([[1, 2], [2, 1]], 2) == 1.0
    assert metrics.distinct([[1], []], 2) is None


CHECKS: list[tuple[str, list[int], bool, dict[str, Any], set[str]]] = [
    ("Cold.", [5, 6], True, {}, set()),
    ("Cold.", [5, 6], False, {}, {"stopped"}),
    (" \n", [5], True, {}, {"not empty"}),
    ("a a a a", [7] * 13, True, {}, {"not repetitive"}),
    ("Er ist kalt und schön.", [1, 2], True, {"language": "en"}, {"language"}),
    ("", [], True, {"language": "en"}, {"not empty", "language"}),
    ("42", [1], True, {"language": "en"}, set()),
    ("One. Two.", [1, 2], True, {"max_sentences": 1}, {"max sentences"}),
    ("One. Two.", [1, 2], True, {"max_sentences": 2}, set()),
]


@pytest.mark.parametrize(("text", "ids", "stopped", "prompt", "failed"), CHECKS)
def test_an_answer_fails_the_checks_that_it_breaks(
    text: str, ids: list[int], stopped: bool, prompt: dict[str, Any], failed: set[str]
) -> None:
    found = metrics.checks(text, ids, stopped=stopped, prompt=prompt)
    assert {name for name, passed in found.items() if not passed} == failed


def test_the_success_rate_is_the_share_of_answers_that_pass_everything() -> None:
    def answer(likelihood: float | None, **checks: bool) -> dict[str, Any]:
        return {"text": "Yes. No.", "ids": [1, 2, 3], "checks": checks, "likelihood": likelihood}

    found = metrics.summary(
        [answer(-1.0, stopped=True), answer(-3.0, stopped=True, language=False), answer(None)]
    )
    assert found["success_rate"] == round(2 / 3, 4)
    assert found["checks"] == {"stopped": 1.0, "language": 0.0}
    assert found["coherence"] == -2.0
    assert found["sentences"] == {"min": 2, "median": 2, "mean": 2, "max": 2}


def test_likeness_takes_the_best_of_several_references_in_any_script() -> None:
    found = metrics.likeness(
        ["The cat sat on the mat.", "Кот сидит дома сегодня."],
        [["A dog ran.", "The cat sat on the mat."], ["Кот сидит дома сегодня."]],
    )
    assert all(math.isclose(value, 100, abs_tol=0.01) for value in found.values()), found
    worse = metrics.likeness(["A dog."], [["The cat sat on the mat."]])
    assert all(value < 50 for value in worse.values()), worse

"""Which language a text is in, where it has enough to tell it by."""

import py3langid
import pytest

from envtune.data.taken import language
from envtune.settings import languages


@pytest.mark.parametrize(
    ("text", "asked", "kept"),
    [
        ("The capital of France is Paris.", "en", True),
        ("The capital of France is Paris.", "en-US", True),
        ("The capital of France is Paris.", "it", False),
        ("La capitale della Francia è Parigi.", "it", True),
        ("La capitale della Francia è Parigi.", "en", False),
        ("Die Hauptstadt von Frankreich ist Paris.", "de", True),
        ("La capital de Francia es París.", "es", True),  # a close relative is likelier
        ("法国的首都是巴黎。", "zh", True),
        ("Столица Франции - Париж.", "ru", True),
        ("Столица Франции - Париж.", "pl", False),
        ("42", "de", None),
    ],
)
def test_a_language_is_told_where_there_is_enough_to_tell_it_by(
    text: str, asked: str, kept: bool | None
) -> None:
    assert language.in_one_of(text, [asked]) is kept


def test_the_languages_are_those_of_the_installed_library() -> None:
    assert {name for name, _ in py3langid.rank("x")} - {"zxx"} == languages.LANGUAGES


def test_a_row_is_kept_by_prompt_and_answer_together_and_where_nothing_tells() -> None:
    rule = language.rule(["en", "it"])
    assert rule("Translate: good morning to you all.", "Buongiorno a tutti voi.") == ""
    assert rule("What is the capital of France?", "The capital of France is Paris.") == ""
    assert rule("42", "7") == ""
    refused = rule("Столица Франции?", "Столица Франции - Париж.")
    assert refused == "language is none of en, it"

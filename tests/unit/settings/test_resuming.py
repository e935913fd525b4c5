"""Where a training begins, as its settings say it."""

from pathlib import Path

import pytest

from envtune.settings import resuming
from envtune.settings.typed import Settings
from tests.unit.builders import MODEL_AND_DATA, load

KEY = "AXOLOTL_RESUME_FROM_CHECKPOINT"


def given(**environ: str) -> Settings:
    return resuming.translated(load({**MODEL_AND_DATA, **environ}))


@pytest.mark.parametrize(
    ("text", "word"),
    [("latest", "latest"), ("LATEST", "latest"), ("true", "latest"), ("off", "off"),
     ("False", "off"), ("no", "off")],
)  # fmt: skip
def test_the_two_words_are_taken_however_they_are_written(text: str, word: str) -> None:
    settings = given(SFT_RESUME_FROM=text)
    assert settings.get("SFT_RESUME_FROM") == word
    assert "resume_from_checkpoint" not in settings.axolotl


def test_a_path_is_axolotls_key_under_the_name_that_was_typed(tmp_path: Path) -> None:
    settings = given(SFT_RESUME_FROM=str(tmp_path))
    assert settings.get("SFT_RESUME_FROM") == "latest"
    assert settings.axolotl["resume_from_checkpoint"].value == str(tmp_path)
    assert settings.axolotl["resume_from_checkpoint"].name == "SFT_RESUME_FROM"


def test_two_places_to_begin_at_are_one_too_many() -> None:
    def problems(**environ: str) -> list[str]:
        return [str(p) for p in resuming.problems(load({**MODEL_AND_DATA, **environ}))]

    assert problems(SFT_RESUME_FROM="a", **{KEY: "b"}) == [
        f"SFT_RESUME_FROM: is a and {KEY} is b; unset one"
    ]
    assert problems(SFT_RESUME_FROM="off", **{KEY: "b"})
    assert not problems(SFT_RESUME_FROM="a", **{KEY: "a"})
    assert not problems(SFT_RESUME_FROM="latest", **{KEY: "b"})

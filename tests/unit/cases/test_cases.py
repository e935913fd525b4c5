"""What people bring is valid, or refused with its code, by its name, before anything is imported."""

import re
from pathlib import Path

import pytest

from envtune.cli import configuration
from envtune.errors import Refused
from tests.harness import clean_environ
from tests.unit.cases import places
from tests.unit.cases.table import BASE, CASES, Case


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    places.furnish(folder)
    return folder


def told(environ: dict[str, str]) -> tuple[int, str]:
    """The exit code and all lines of a check."""
    try:
        made = configuration.configure(environ=environ)
    except Refused as refused:
        return int(refused.exit), "\n".join(map(str, refused.problems))
    return 0, "\n".join(made.config.warnings)


@pytest.mark.parametrize("case", CASES, ids=lambda case: re.sub(r"\W+", "-", case.name)[:60])
def test_a_case_ends_as_its_row_says(
    case: Case, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    given = {**BASE, **case.environ}
    environ = clean_environ(**{name: text for name, text in given.items() if text is not None})
    code, lines = told(environ)
    assert code == case.code, lines
    for word in case.words:
        assert (word[1:] not in lines) if word.startswith("!") else (word in lines), lines


def test_there_are_enough_of_them_and_each_stands_once() -> None:
    assert len(CASES) > 150
    assert len({case.name for case in CASES}) == len(CASES)

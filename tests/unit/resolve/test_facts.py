"""What is read of the model and the data, and what counts as here."""

from pathlib import Path

import pytest

from envtune.resolve import facts
from envtune.settings import paths
from tests.unit.builders import load


@pytest.mark.parametrize(
    ("settings", "local"),
    [
        ({"AXOLOTL_BASE_MODEL": "/m", "AXOLOTL_DATASETS__0__PATH": "rows.jsonl"}, True),
        ({"AXOLOTL_BASE_MODEL": "org/m", "AXOLOTL_DATASETS__0__PATH": "rows.jsonl"}, False),
        ({"AXOLOTL_BASE_MODEL": "/m", "AXOLOTL_DATASETS__0__PATH": "org/rows"}, False),
        ({"AXOLOTL_BASE_MODEL": "/m", "AXOLOTL_TOKENIZER_CONFIG": "org/t"}, False),
        ({"AXOLOTL_BASE_MODEL": "/m", "AXOLOTL_LORA_MODEL_DIR": "org/a"}, False),
        ({"AXOLOTL_BASE_MODEL": "/m", "AXOLOTL_TEST_DATASETS__0__PATH": "org/t"}, False),
        ({"AXOLOTL_BASE_MODEL": "/m", "AXOLOTL_HUB_MODEL_ID": "me/x"}, True),
    ],
)
def test_the_hub_is_needed_as_soon_as_one_part_is_not_here(
    settings: dict[str, str], local: bool
) -> None:
    assert paths.everything_local(paths.located(load(settings))) is local


def test_the_models_context_is_its_config_jsons(tmp_path: Path) -> None:
    assert facts.read_model(str(tmp_path)).config == {}
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 64}')
    assert facts.read_model(str(tmp_path)).context == 64
    assert facts.read_model("acme/tiny") == facts.ModelFacts("acme/tiny", local=False)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ('{"a": 1}\n{"b": 2}\n', ("a",)),
        ('[{"a": 1, "c": 2}]', ("a", "c")),
        ('{\n  "a": 1\n}', ("a",)),
        ('\n\n{"a": "\\u00e9"}', ("a",)),
    ],
)
def test_the_columns_are_those_of_the_first_row(
    text: str, columns: tuple[str, ...], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    (data,) = facts.read_data([{"path": str(path)}])
    assert (data.columns, data.problem) == (columns, "")

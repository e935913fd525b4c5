"""What `explain` and a resolved value say of what is not taken as it is."""

from pathlib import Path

import pytest

from envtune.cli import configuration, output
from envtune.settings.paths import near_file
from tests.harness import clean_environ
from tests.unit.cases import places
from tests.unit.cases.table import BASE


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    places.furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(**more: str) -> configuration.Configuration:
    return configuration.configure(environ=clean_environ(**{**BASE, **more}))


@pytest.mark.parametrize(
    ("key", "text", "becomes"),
    [
        ("output_dir", "here/mine", "the folder of the run's results"),
        ("resume_from_checkpoint", "checkpoint-5", "the training starts there"),
        ("batch_size", "8", "made of micro_batch_size"),
        ("plugins", "axolotl.integrations.liger.LigerPlugin", "beside envtune's own"),
    ],
)
def test_explain_tells_what_was_set_and_what_becomes_of_it(
    key: str, text: str, becomes: str, place: Path
) -> None:
    made = configured(**{f"AXOLOTL_{key.upper()}": text})
    lines = output.explanation(made.config, made.settings, key)
    assert text in lines
    assert f"(AXOLOTL_{key.upper()})" in lines
    assert becomes in lines
    assert "not set" not in lines


def test_an_old_flag_is_explained_under_the_key_that_it_has_become(place: Path) -> None:
    made = configured(AXOLOTL_SDP_ATTENTION="true")
    lines = output.explanation(made.config, made.settings, "AXOLOTL_SDP_ATTENTION")
    assert "attn_implementation" in lines
    assert "AXOLOTL_SDP_ATTENTION" in lines


def test_rows_that_stream_out_of_a_file_are_named_as_the_datasets_library_does(place: Path) -> None:
    made = configured(
        AXOLOTL_DATASETS__0__PATH="",
        AXOLOTL_PRETRAINING_DATASET='[{"path": "text.jsonl", "type": "pretrain"}]',
        AXOLOTL_MAX_STEPS="4",
    )
    [item] = made.config.plain()["pretraining_dataset"]
    assert item == {"path": "json", "data_files": str(place / "text.jsonl"), "type": "pretrain"}


def test_one_layer_is_a_list_of_one_and_a_pattern_stays_one(place: Path) -> None:
    def targets(text: str) -> object:
        return configured(AXOLOTL_LORA_TARGET_MODULES=text).config.plain()["lora_target_modules"]

    assert targets("q_proj") == ["q_proj"]
    assert targets("all-linear") == "all-linear"
    assert targets(r".*\.q_proj") == r".*\.q_proj"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("alpca.jsonl", "alpaca.jsonl"),
        ("ALPACA.JSONL", "alpaca.jsonl"),
        ("./rosw/trian.jsonl", "rows/train.jsonl"),
        ("nothing/of/the/kind", ""),
        ("x" * 5000, ""),
        ("", ""),
    ],
)
def test_the_nearest_file_is_found_through_one_slip_a_part(
    path: str, found: str, place: Path
) -> None:
    assert near_file(path) == (f"; there is {found}" if found else "")


def test_a_file_with_the_line_ends_of_windows_is_told_for_each_text(place: Path) -> None:
    made = configured(AXOLOTL_SEED="7\r", AXOLOTL_LOAD_IN_8BIT="false\r")
    assert made.config.plain()["seed"] == 7
    assert sum("ends in a CR" in line for line in made.config.warnings) == 2

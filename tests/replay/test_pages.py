"""The sources' own pages: every configuration on them, as it is printed there.

Only what a page leaves to its reader is changed: the mounts of the model and the data.
"""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import SHARED
from tests.replay import test_industrial, test_pod, test_trainer
from tests.replay.conftest import Configure, differing

PAGES = SHARED.parent / "seeds"
pytestmark = pytest.mark.skipif(
    not PAGES.is_dir(), reason="the sources' pages are not beside this checkout"
)


def blocks(source: str, language: str) -> list[str]:
    """The fenced blocks of one language on a source's page, in order."""
    [page] = PAGES.glob(f"{source}_*.txt")
    text = page.read_text(errors="replace")
    return re.findall(rf"^[ ]*```{language}\n(.*?)^[ ]*```$", text, re.DOTALL | re.MULTILINE)


def block(source: str, language: str, mark: str) -> str:
    """The first block that holds `mark`."""
    return next(text for text in blocks(source, language) if mark in text)


@pytest.mark.parametrize("language", ["json", "yaml"])
def test_the_trainers_json_alone_and_in_its_config_map(
    language: str, configure: Configure, tmp_path: Path, embedded: Path
) -> None:
    text = block("S3", language, "model_name_or_path")
    text = text[text.index("{") : text.rindex("    }\n---") + 6] if language == "yaml" else text
    mounted = test_trainer.mounted(tmp_path, embedded / "tiny-llama")
    for name in ("model_name_or_path", "training_data_path", "output_dir"):
        text = text.replace(test_trainer.EXAMPLE[name], mounted[name])
    (tmp_path / "config.json").write_text(text)
    result, found = configure(SFT_TRAINER_CONFIG_JSON_PATH=str(tmp_path / "config.json"))
    assert result.code == 0, result.err
    assert not differing(found, test_trainer.ASKED)


def exported(text: str) -> dict[str, str]:
    """What bash exports of a block's AXOLOTL_* lines."""
    lines = "\n".join(line for line in text.splitlines() if line.startswith("export AXOLOTL_"))
    done = subprocess.run(
        ["bash", "-c", f"{lines}\nenv -0"], env={}, capture_output=True, text=True, check=True
    )
    pairs = (pair.partition("=") for pair in done.stdout.split("\0"))
    return {name: value for name, _, value in pairs if name.startswith("AXOLOTL_")}


def test_the_pods_variables(configure: Configure) -> None:
    examples = [given for text in blocks("S4", "bash") if (given := exported(text))]
    assert len(examples) > 5
    for given in examples:
        unclear = [given.pop(name) for name in ("AXOLOTL_MODEL", "AXOLOTL_DATA") if name in given]
        assert len(unclear) in (0, 2)  # refused; tests/replay/test_pod.py has the lines
        result, found = configure(**test_pod.MODEL | test_pod.DATA | given)
        assert result.code == 0, (given, result.err)
        asked = {
            name.removeprefix("AXOLOTL_").lower(): yaml.safe_load(text)
            for name, text in given.items()
        }
        assert not differing(found, asked), given


def test_the_industrial_pipelines_two_files(configure: Configure, tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(block("S5", "json", '"output_params"'))
    (tmp_path / "training.json").write_text(block("S5", "json", '"training_params"'))
    result, found = configure(
        SFT_DATASET_CONFIG=str(tmp_path / "data.json"),
        SFT_TRAINING_CONFIG=str(tmp_path / "training.json"),
        SFT_MODEL_PATH="TinyLlama/TinyLlama_v1.1",
    )
    assert result.code == 0, result.err
    assert not differing(found, test_industrial.ASKED)


PARTS: list[tuple[str, dict[str, Any]]] = [
    ("// Higher rank", {"lora_r": 64, "lora_alpha": 16, "lora_dropout": 0.1}),
    ('"per_device_train_batch_size": 8', {"micro_batch_size": 8, "fp16": True}),
    ('"per_device_train_batch_size": 12', {"micro_batch_size": 12, "gradient_checkpointing": False}),
    ("machine learning?", {}),
]  # fmt: skip


@pytest.mark.parametrize(("mark", "asked"), PARTS, ids=[mark for mark, _ in PARTS])
def test_a_part_of_the_industrial_pipelines_training(
    mark: str, asked: dict[str, Any], configure: Configure, tmp_path: Path
) -> None:
    (tmp_path / "training.json").write_text(block("S5", "json", mark))
    result, found = configure(
        SFT_TRAINING_CONFIG=str(tmp_path / "training.json"), **test_pod.MODEL | test_pod.DATA
    )
    assert result.code == 0, result.err
    assert not differing(found, asked)


def test_a_data_set_of_ones_own(configure: Configure, tmp_path: Path) -> None:
    rows = tmp_path / "my_data.json"
    rows.write_text(json.dumps({"question": "a", "answer": "b"}))
    text = block("S5", "json", '"custom_source"').replace("/path/to/my_data.json", str(rows))
    (tmp_path / "data.json").write_text(text)
    result, found = configure(SFT_DATASET_CONFIG=str(tmp_path / "data.json"), **test_pod.MODEL)
    assert result.code == 0, result.err
    [data] = found["datasets"]
    assert (data["path"], data["ds_type"]) == (str(rows), "json")
    assert "{{question}}" in data["input_format"]

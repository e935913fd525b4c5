"""The targets of the sources, called as their pages call them: which verb starts, with what."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import ROOT, clean_environ

_SHOWN = "SFT_DATASET_CONFIG SFT_TRAINING_CONFIG SFT_MODEL_PATH SFT_DATA_DIRS SFT_PREPARED_DIR "
# A program that records what it got, in place of envtune and of the door.
_RECORDS = f"""#!/bin/bash
echo -n "$(basename "$0") $*" >> called
for name in {_SHOWN} SFT_TRAINER_CONFIG_JSON_PATH; do
  [ -z "${{!name}}" ] || echo -n " ${{name#SFT_}}=${{!name}}" >> called
done
echo >> called
[ "$1" != prepare ] || mkdir -p "${{SFT_PREPARED_DIR:-prepared}}"
"""
TINY = (
    "TRAINING_CONFIG=config/sft_training/lora_tiny.json MODEL_PATH=checkpoints/pretrain/tiny/final"
)
ALPACA = "data/sft_processed/alpaca_chatml"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for program in (".venv/bin/envtune", "scripts/autorun.sh"):
        path = tmp_path / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_RECORDS)
        path.chmod(0o755)
    for name in ("Makefile", "requirements.txt", "requirements-cuda.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(
    folder: Path, *words: str, **environ: str
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    done = ["--assume-old=.venv/.installed", "--assume-old=.venv/.requirements"]
    for stamp in (".requirements", ".installed"):
        (folder / ".venv" / stamp).touch()
    told = subprocess.run(
        ["make", "--no-print-directory", *done, *words], cwd=folder, capture_output=True,
        text=True, check=False, env=clean_environ(MAKEFLAGS=" ".join(done), **environ),
    )  # fmt: skip
    called = folder / "called"
    return told, called.read_text().splitlines() if called.exists() else []


CALLS: list[tuple[tuple[str, ...], dict[str, str], list[str]]] = [
    (
        ("prepare-sft-corpus",),
        {},
        [f"envtune prepare DATASET_CONFIG=config/sft_datasets/alpaca_chatml.json PREPARED_DIR={ALPACA}"],
    ),
    (
        ("prepare-sft-corpus", "SFT_DATASET_CONFIG=my/mix.json", "FORCE=1"),
        {},
        ["envtune prepare --force DATASET_CONFIG=my/mix.json PREPARED_DIR=data/sft_processed/mix"],
    ),
    (
        ("prepare-sft-corpus", "sft-train-tiny"),
        {},
        [
            f"envtune prepare DATASET_CONFIG=config/sft_datasets/alpaca_chatml.json PREPARED_DIR={ALPACA}",
            f"autorun.sh  {TINY} DATA_DIRS={ALPACA}",
        ],
    ),
    (
        ("sft-train-small", "SFT_TRAINING_CONFIG=t.json", "SFT_DATA_DIRS=a,b"),
        {"SFT_MODEL_PATH": "acme/small"},
        ["autorun.sh  TRAINING_CONFIG=t.json MODEL_PATH=acme/small DATA_DIRS=a,b"],
    ),
    (
        ("sft-custom",),
        {"SFT_DATASET_CONFIG": "d.json", "SFT_TRAINING_CONFIG": "t.json", "SFT_MODEL_PATH": "m"},
        [
            "envtune prepare DATASET_CONFIG=d.json TRAINING_CONFIG=t.json MODEL_PATH=m PREPARED_DIR=data/sft_processed/d",
            "autorun.sh  TRAINING_CONFIG=t.json MODEL_PATH=m DATA_DIRS=data/sft_processed/d",
        ],
    ),
    (
        ("sft-pipeline-complete",),
        {},
        [
            f"envtune prepare DATASET_CONFIG=config/sft_datasets/alpaca_chatml.json PREPARED_DIR={ALPACA}",
            f"autorun.sh  {TINY} DATA_DIRS={ALPACA}",
            "envtune evaluate",
        ],
    ),
    (
        ("preprocess-sft", "CONFIG=debug_config.yaml"),
        {},
        ["envtune prepare TRAINER_CONFIG_JSON_PATH=debug_config.yaml"],
    ),
    (("sft-eval",), {}, ["envtune evaluate"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "environ", "calls"), CALLS, ids=[" ".join(c[0]) for c in CALLS])
def test_each_target_starts_its_verb(
    words: tuple[str, ...], environ: dict[str, str], calls: list[str], checkout: Path
) -> None:
    told, called = make(checkout, *words, **environ)
    assert (told.returncode, called) == (0, calls), told.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("sft-train-base",), "prepare the data first: make prepare-sft-corpus"),
        (("sft-custom", "SFT_DATASET_CONFIG=d.json"), "sft-custom needs SFT_TRAINING_CONFIG"),
        (("tokenizer-train-mix",), "envtune trains no tokenizer"),
    ],
)
def test_what_is_missing_is_said_and_nothing_starts(
    words: tuple[str, ...], said: str, checkout: Path
) -> None:
    told, called = make(checkout, *words)
    assert told.returncode != 0
    assert said in told.stderr
    assert called == []


def test_a_corpus_that_was_prepared_later_is_the_one_that_trains(checkout: Path) -> None:
    for age, name in enumerate(("newer", "older")):
        (checkout / "data/sft_processed" / name).mkdir(parents=True)
        os.utime(checkout / "data/sft_processed" / name, (2e9 - age, 2e9 - age))
    _, called = make(checkout, "sft-train-base")
    assert called[0].endswith("DATA_DIRS=data/sft_processed/newer")

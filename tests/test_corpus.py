"""Data prepared and converted by the real verbs, killed and started again."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.harness import clean_environ, envtune
from tests.hub_standin import Repo, hub

GOOD = [
    {"question": f"What is {n} and {n}?", "answer": f"It is {2 * n}, since {n} is there twice."}
    for n in range(300)
]
ODD: list[dict[str, Any]] = [
    {"question": "Hi", "answer": "An answer that is long enough."},
    {"question": "What is a long answer?", "answer": "x" * 500},
    {"question": "Where is it written?", "answer": "At https://example.com/a it is."},
    GOOD[3],
]
DESCRIBED = {
    "name": "sums",
    "template": "instruct",
    "output_params": {"sequence_length": 512, "train_ratio": 0.9},
    "quality_filters": {
        "min_prompt_length": 10, "max_prompt_length": 200, "min_response_length": 5,
        "max_response_length": 200, "filter_urls": True, "filter_code_blocks": False,
        "remove_duplicates": True,
    },
    "datasets": [
        {"name": "sums", "type": "json", "dataset_name": "rows.jsonl",
         "text_fields": {"prompt": "question", "response": "answer"}},
    ],
}  # fmt: skip


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in GOOD + ODD))
    (tmp_path / "data.json").write_text(json.dumps(DESCRIBED))
    return tmp_path


def prepare(here: Path, *words: str, **settings: str) -> Any:
    environ = clean_environ(**{"SFT_DATASET_CONFIG": "data.json", **settings})
    return envtune("prepare", *words, cwd=here, environ=environ)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_description_becomes_a_folder_that_a_run_trains_on(here: Path) -> None:
    dry = prepare(here, "--dry-run")
    assert (dry.code, "nothing was written" in dry.err) == (0, True), dry.err
    assert not (here / "prepared").exists()
    made = prepare(here)
    assert made.code == 0, made.err
    for told in ("1 dropped: prompt shorter than 10 characters; first", "rows.jsonl:301",
                 "1 dropped: answer longer than 200 characters", "1 dropped: holds a web address",
                 "1 dropped: the same as a row before"):  # fmt: skip
        assert told in made.err
    kept = [rows(here / "prepared" / f"{name}.jsonl") for name in ("train", "val")]
    assert sorted(map(str, kept[0] + kept[1])) == sorted(map(str, GOOD))
    assert 10 < len(kept[1]) < 60
    state = json.loads((here / "prepared/training_state.json").read_text())
    assert state["splits"]["train"]["conversations"] == len(kept[0])
    assert (
        "`answer longer than 200 characters` | 1 |" in (here / "prepared/DATA_CARD.md").read_text()
    )
    first = contents(here / "prepared")
    assert "holds these rows already" in prepare(here).err
    assert prepare(here, "--force").code == 0
    assert contents(here / "prepared") == first
    other = prepare(here, SFT_MIN_RESPONSE_LENGTH="9")
    assert other.code == 1
    assert "holds rows of another SFT_MIN_RESPONSE_LENGTH; --force prepares anew" in other.err
    settings = {"AXOLOTL_BASE_MODEL": "/nowhere", "SFT_DATASET_CONFIG": "", "SFT_DEVICE": "cpu"}
    read = envtune("check", cwd=here, environ=clean_environ(**settings, SFT_DATA_DIRS="prepared"))
    assert "prepared" not in read.err, read.err  # the model alone is missed
    assert "/nowhere" in read.err
    assert "is read as a configuration" not in read.err  # its names are Axolotl's


def test_nothing_left_is_told_and_nothing_is_written(here: Path) -> None:
    none = prepare(here, SFT_MIN_PROMPT_LENGTH="100")
    assert none.code == 3
    assert "none of its 304 rows is left to train (304: prompt shorter than 100" in none.err
    assert contents(here / "prepared") == {}


@pytest.mark.parametrize(
    ("settings", "code", "told"),
    [
        ({"SFT_DATA_WEIGHTS": "1,2"}, 1, "has 2 weights for 1 data sets"),
        ({"SFT_DATASET_CONFIG": ""}, 1, "AXOLOTL_DATASETS: is not set"),
        ({"AXOLOTL_DATASETS": '[{"path": "row.jsonl"}]'}, 3, "is not there; there is"),
        ({"AXOLOTL_DATASETS": '[{"type": "alpaca"}]'}, 3, "a data set has no path (type)"),
        ({"AXOLOTL_DATASETS": '[{"path": "rows.jsonl", "split": "train[5:9]"}]'}, 1, "train[:100]"),
        ({"SFT_FILTER_URL": "true"}, 1, "did you mean SFT_FILTER_URLS?"),
        ({"SFT_DATA_WEIGHTS": "inf"}, 1, "SFT_DATA_WEIGHTS"),
    ],
)
def test_what_cannot_be_prepared_is_one_line(
    settings: dict[str, str], code: int, told: str, here: Path
) -> None:
    refused = prepare(here, **settings)
    assert (refused.code, told in refused.err) == (code, True), refused.err
    assert not (here / "prepared").exists()


def test_a_folder_of_somebody_elses_is_left_alone(here: Path) -> None:
    (here / "prepared").mkdir()
    (here / "prepared/train.jsonl").write_text("mine\n")
    refused = prepare(here, "--force")
    assert refused.code == 1
    assert "train.jsonl was not written by a preparation; move it away first" in refused.err
    assert contents(here / "prepared") == {"train.jsonl": b"mine\n"}


def test_data_of_the_hub_is_fetched_and_its_split_alone_prepared(
    here: Path, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    repository.mkdir()
    (here / "rows.jsonl").rename(repository / "train-00000-of-00001.jsonl")
    (repository / "test-00000-of-00001.jsonl").write_text("no rows\n")
    (repository / "README.md").write_text("# rows\n")
    far = {"dataset_name": "acme/rows", "type": "huggingface", "max_samples": 40,
           "text_fields": {"prompt": "question", "response": "answer"}}  # fmt: skip
    (here / "data.json").write_text(json.dumps({**DESCRIBED, "datasets": [far]}))
    cache = {"HF_HUB_OFFLINE": "", "HF_HOME": str(tmp_path / "hf")}
    with hub() as made:
        made.repos = {("dataset", "acme/rows"): Repo(repository)}
        done = prepare(here, HF_ENDPOINT=made.url, **cache)
        assert done.code == 0, done.err
        assert "acme/rows: 40 rows read" in done.err
        made.repos = {}
        anew = {**cache, "HF_HOME": str(tmp_path / "other")}
        lost = prepare(here, "--force", HF_ENDPOINT=made.url, **anew)
        assert (lost.code, "acme/rows is no folder here and not on" in lost.err) == (4, True)
    again = prepare(here, SFT_LOCAL_FILES_ONLY="true", **cache)
    assert "holds these rows already" in again.err
    away = prepare(here, HF_HUB_OFFLINE="", HF_HOME=str(tmp_path / "empty"))  # nothing listens
    assert (away.code, "acme/rows: " in away.err) == (201, True), away.err
    assert "cannot be reached" in away.err
    refused = prepare(here, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"))
    assert refused.code == 4
    assert "acme/rows is not in the cache and HF_HUB_OFFLINE is set" in refused.err


def test_a_killed_preparation_begins_anew_and_ends_with_the_same_bytes(
    here: Path, dice: random.Random
) -> None:
    started = time.monotonic()
    assert prepare(here, SFT_PREPARED_DIR="whole").code == 0
    whole, length = contents(here / "whole"), time.monotonic() - started
    environ = clean_environ(SFT_DATASET_CONFIG="data.json", SFT_PREPARED_DIR="killed")
    command = [sys.executable, "-m", "envtune", "prepare"]
    for _ in range(6):
        child = subprocess.Popen(command, cwd=here, env=environ, stderr=subprocess.DEVNULL)
        time.sleep(dice.uniform(0.3, 1) * length)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert prepare(here, SFT_PREPARED_DIR="killed").code == 0
        assert contents(here / "killed") == whole
        for path in (here / "killed").iterdir():
            path.unlink()


def test_a_csv_becomes_json_lines(tmp_path: Path) -> None:
    with (tmp_path / "a.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows([["input", "output", "id"], ["Say é,\nplease", "é", 1], ["b", "", 2]])
    made = envtune("convert", "a.csv", "a.jsonl", cwd=tmp_path, environ=clean_environ())
    assert made.code == 0, made.err
    assert "wrote 2 rows to a.jsonl" in made.err
    assert rows(tmp_path / "a.jsonl") == [
        {"prompt": "Say é,\nplease", "completion": "é"}, {"prompt": "b", "completion": ""},
    ]  # fmt: skip
    again = envtune("convert", "a.csv", "a.jsonl", cwd=tmp_path, environ=clean_environ())
    assert again.code == 1
    assert "a.jsonl: is there already" in again.err


@pytest.mark.parametrize(
    ("name", "text", "code", "told"),
    [
        ("a.csv", "title,body\na,b\n", 3, "a.csv:2: has no prompt or question"),
        ("a.jsonl", '{"prompt": "a", "completion": "b"}\n{"prompt": \n', 3, "a.jsonl:2: "),
        ("a.jsonl", "", 3, "a.jsonl"),
        ("b.csv", None, 1, "b.csv"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_no_file(
    name: str, text: str | None, code: int, told: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    made = envtune("convert", name, "out.jsonl", cwd=tmp_path, environ=clean_environ())
    assert (made.code in (code, 3), told in made.err) == (True, True), made.err
    assert not list(tmp_path.glob("*out.jsonl*"))

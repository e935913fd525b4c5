"""Which repositories of the Hub a run needs, and which names are none."""

import json

import pytest

from envtune.artifacts.modelfiles import CONFIG, TOKENIZER, WEIGHTS
from envtune.settings import paths
from envtune.transfer.repositories import needs, repositories
from tests.unit.builders import load

DATA = {"AXOLOTL_DATASETS__0__PATH": "rows.jsonl"}
MODEL = {"AXOLOTL_BASE_MODEL": "/m"}


def _data(**item: object) -> dict[str, str]:
    return {**MODEL, "AXOLOTL_DATASETS": json.dumps([item])}


# fmt: off
CASES = [
    (MODEL | DATA, []),
    ({**DATA, "AXOLOTL_BASE_MODEL": "gpt2"}, [("AXOLOTL_BASE_MODEL", "model", "gpt2", None)]),
    ({**DATA, "AXOLOTL_BASE_MODEL": "o/m", "AXOLOTL_MODEL_REVISION": "v1"}, [("AXOLOTL_BASE_MODEL", "model", "o/m", "v1")]),
    (MODEL | DATA | {"AXOLOTL_TOKENIZER_CONFIG": "o/t"}, [("AXOLOTL_TOKENIZER_CONFIG", "model", "o/t", None)]),
    (MODEL | DATA | {"AXOLOTL_TOKENIZER_CONFIG": "null"}, []),
    (MODEL | DATA | {"AXOLOTL_LORA_MODEL_DIR": "o/a", "AXOLOTL_MODEL_REVISION": "v1"}, [("AXOLOTL_LORA_MODEL_DIR", "model", "o/a", None)]),
    (MODEL | DATA | {"AXOLOTL_TEST_DATASETS__0__PATH": "o/t"}, [("AXOLOTL_TEST_DATASETS", "dataset", "o/t", None)]),
    (MODEL | {"AXOLOTL_PRETRAINING_DATASET__0__PATH": "o/p"}, [("AXOLOTL_PRETRAINING_DATASET", "dataset", "o/p", None)]),
    (_data(path="o/d", revision="v2", type="alpaca"), [("AXOLOTL_DATASETS", "dataset", "o/d", "v2")]),
    (_data(path="json", data_files="rows.jsonl", type="alpaca"), []),
    (_data(path="json", type="alpaca"), [("AXOLOTL_DATASETS", "dataset", "json", None)]),
    (_data(path="s3://bucket/rows", type="alpaca"), []),
    (_data(path="https://example.org/rows.jsonl", type="alpaca"), []),
    (_data(path="synthetic", type="_synthetic", length=4), []),
]
# fmt: on


@pytest.mark.parametrize(("environ", "expected"), CASES)
def test_only_what_the_hub_holds_is_a_repository(
    environ: dict[str, str], expected: list[tuple[str, str, str, str | None]]
) -> None:
    found = repositories(paths.located(load(environ)))
    assert [(repo.name, repo.kind, repo.id, repo.revision) for repo in found] == expected


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"base_model"}, {"base_model": (CONFIG, WEIGHTS, TOKENIZER)}),
        (
            {"base_model", "tokenizer_config"},
            {"base_model": (CONFIG, WEIGHTS), "tokenizer_config": (TOKENIZER,)},
        ),
        (
            {"base_model", "base_model_config"},
            {"base_model": (WEIGHTS,), "base_model_config": (CONFIG, TOKENIZER)},
        ),
    ],
)
def test_parts_that_come_from_elsewhere_are_not_looked_for(
    keys: set[str], wanted: dict[str, tuple[str, ...]]
) -> None:
    found = needs(keys)
    assert {key: found[key] for key in keys} == wanted

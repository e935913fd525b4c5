"""The examples of the systems that envtune takes the place of, run through `envtune`."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness import Result, clean_environ, envtune
from tests.hub_standin import Hub, Repo, hub

MODELS = ("Qwen/Qwen2-7B", "Qwen/Qwen2.5-0.5B", "TinyLlama/TinyLlama_v1.1",
          "NousResearch/Llama-3.2-1B")  # fmt: skip
DATASETS = ("tatsu-lab/alpaca", "mhenrichsen/alpaca_2k_test", "teknium/GPT4-LLM-Cleaned",
            "databricks/databricks-dolly-15k")  # fmt: skip

# What LLaMA-Factory knows of its data.
INFO = {
    "chats": {"file_name": "chats.json", "formatting": "sharegpt"},
    "questions": {"file_name": "questions.json"},
    "pairs": {"file_name": "pairs.json", "ranking": True,
              "columns": {"prompt": "instruction", "chosen": "good", "rejected": "bad"}},
    "pictures": {"file_name": "p.json", "formatting": "sharegpt", "columns": {"images": "images"}},
    "pages": {"hf_hub_url": "acme/pages", "columns": {"prompt": "page"}, "num_samples": 9},
}  # fmt: skip

Configure = Callable[..., tuple[Result, dict[str, Any]]]


@pytest.fixture(scope="session")
def source_hub(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A Hub with the repositories that the examples name, each a tiny one."""
    rows = tmp_path_factory.mktemp("rows")
    shutil.copy(embedded / "instructions.jsonl", rows / "train.jsonl")
    with hub() as made:
        made.repos = {
            **{("model", name): Repo(embedded / "tiny-llama") for name in MODELS},
            **{("dataset", name): Repo(rows) for name in DATASETS},
        }
        token = {"accessToken": {"role": "write"}}
        made.users = {"hf_replayed": {"name": "org", "orgs": [], "auth": token}}
        yield made


@pytest.fixture
def configure(source_hub: Hub, tmp_path: Path) -> Configure:
    """Configures for two pretended H100s: how it ended, and the YAML."""

    def run(**settings: str) -> tuple[Result, dict[str, Any]]:
        environ = clean_environ(
            HF_ENDPOINT=source_hub.url,
            HF_HUB_OFFLINE="",
            HF_HOME=str(tmp_path / "hf"),
            **{"SFT_PRETEND_GPU": "h100x2", **settings},
        )
        written = tmp_path / "axolotl.yaml"
        result = envtune("configure", "--output", str(written), cwd=tmp_path, environ=environ)
        return result, yaml.safe_load(written.read_text()) if written.exists() else {}

    return run


def encoded(document: dict[str, Any]) -> str:
    """A document as the trainer's image takes it in a variable."""
    return base64.b64encode(json.dumps(document).encode()).decode()


def differing(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """What a YAML holds where it is not what was asked for."""
    return {key: found.get(key, "absent") for key in wanted if found.get(key) != wanted[key]}


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of LLaMA-Factory's data, in the one where a run starts."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset_info.json").write_text(json.dumps(INFO))
    monkeypatch.chdir(tmp_path)
